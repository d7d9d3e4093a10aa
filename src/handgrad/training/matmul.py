"""Float32 matmul precision: PyTorch's default, or a faster setting where it rounds no more."""

import torch

DEFAULT = "highest"  # PyTorch's name for it
FASTER = "medium"  # lets a library round to bfloat16; without units for that, take other float32 kernels


def set_matmul_precision(matmul: str, device: torch.device) -> str:
    """Set PyTorch's switch for products in float32, for the whole process.

    Args:
        matmul: "default"; "auto": "medium" where that rounds nothing and is faster; or PyTorch's "high" or "medium".
        device: where the products will be made.

    Returns:
        what was set: PyTorch's "highest", "high" or "medium".
    """
    auto = FASTER if device.type == "cpu" and faster_is_exact() else DEFAULT
    precision = {"default": DEFAULT, "auto": auto}.get(matmul, matmul)
    torch.set_float32_matmul_precision(precision)
    return precision


def faster_is_exact() -> bool:
    """Whether "medium" makes this CPU multiply in float32 as before, and faster.

    PyTorch then takes oneDNN's kernels in place of MKL's: they use AVX-512 on any maker's CPU, MKL's on Intel's alone.
    With units for bfloat16 matrices (AMX, AVX512-BF16, ARM's) they round instead (docs/scaling.md).
    """
    cpu = torch.cpu.get_capabilities()
    rounds = any(cpu.get(unit) for unit in ("amx_bf16", "amx_fp16", "avx512_bf16"))
    return cpu.get("architecture") == "x86_64" and "Intel" not in str(cpu.get("cpu_name")) and not rounds

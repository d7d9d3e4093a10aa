"""Float32 matmul precision: PyTorch's default, or a faster setting if it loses no precision."""

from typing import Any

import torch

DEFAULT = "highest"  # PyTorch's name for it
FASTER = "medium"  # allows bfloat16; on CPUs without bfloat16 units it only selects other float32 kernels


def set_matmul_precision(matmul: str, device: torch.device) -> str:
    """Set PyTorch's float32 matmul precision for the whole process; return it: "highest", "high" or "medium".

    `matmul` is "default"; "auto": "medium" if that is faster without loss of precision; or PyTorch's "high", "medium".
    """
    auto = FASTER if device.type == "cpu" and faster_is_exact() else DEFAULT
    precision = {"default": DEFAULT, "auto": auto}.get(matmul, matmul)
    torch.set_float32_matmul_precision(precision)
    return precision


def faster_is_exact() -> bool:
    """Tell whether "medium" is faster on this CPU and still multiplies in float32.

    It makes PyTorch use oneDNN instead of MKL: oneDNN uses AVX-512 on any CPU, MKL only on Intel's. On CPUs with
    bfloat16 matrix units (AMX, AVX512-BF16, ARM's) oneDNN rounds to bfloat16 instead (docs/scaling.md).
    False before PyTorch 2.14, which does not name the CPU.
    """
    cpu = cpu_capabilities()
    rounds = any(cpu.get(unit) for unit in ("amx_bf16", "amx_fp16", "avx512_bf16"))
    return cpu.get("architecture") == "x86_64" and "Intel" not in str(cpu.get("cpu_name")) and not rounds


def cpu_capabilities() -> dict[str, Any]:
    """Return the CPU's name, architecture and units; empty before PyTorch 2.14."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found

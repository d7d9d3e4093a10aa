"""IDX files of MNIST and its drop-in replacements: verify, unpack, download; user files are never overwritten."""

import gzip
import logging
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from torchvision.datasets.utils import download_url, extract_archive

from handgrad.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
UNSIGNED, SIDE = 0x08, 28
IDX_TYPES = {0x08: "unsigned bytes", 0x09: "signed bytes", 0x0B: "int16", 0x0C: "int32"}
IDX_TYPES |= {0x0D: "float32", 0x0E: "float64"}
SCRATCH = ".unpacking."  # prefix of temporary folders


@contextmanager
def unpack_lock(folder: Path) -> Iterator[None]:
    """Lock a folder, created if missing, removed again if empty, and delete leftovers of killed processes."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK) as lock:
            try:
                for left in folder.glob(f"{SCRATCH}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
            finally:
                with suppress(OSError):  # before the release, as in `run_lock`
                    Path(lock.lock_file).unlink()
    except OSError as error:
        raise UserError(
            f"cannot unpack in {folder} ({error.strerror or error}): make {folder} writable "
            "or point data.root to a folder that is"
        ) from error
    finally:
        for path in missing:
            with suppress(OSError):  # not empty, or never created
                path.rmdir()


def ensure_unpacked(archive: Path, md5: str, mirrors: list[str]) -> None:
    """Ensure that the unpacked file of an archive is complete; unpack, and download if the archive is missing.

    Existing files are never overwritten: an archive is used even if its checksum differs, `md5` is for the download,
    and an unpacked file that does not match it is renamed. Writes are atomic. UserError if the archive is damaged, or
    missing everywhere.
    """
    unpacked = archive.with_suffix("")
    if is_complete(unpacked, archive):
        return
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=SCRATCH) as scratch:
        if not archive.exists():
            download(archive, md5, mirrors, scratch)
        extracted = unpack(archive, Path(scratch))
        if unpacked.exists():
            kept = unpacked.with_name(f"{unpacked.name}.{datetime.now():%Y-%m-%d_%H-%M-%S-%f}.kept")
            unpacked.rename(kept)
            log.warning(
                "%s differs from its archive %s: unpacked again; the old file is now %s", unpacked, archive, kept
            )
        extracted.replace(unpacked)


def unpack(archive: Path, scratch: Path) -> Path:
    """Unpack an archive into a temporary folder; UserError if it is not a gzipped, complete IDX file."""
    try:
        extracted = Path(extract_archive(str(archive), str(scratch)))
        fault = fault_of(extracted, extracted.read_bytes()) or "has another checksum"
        reason = None if is_complete(extracted, archive) else f"its content {fault}"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = str(error)
    if reason is None:
        return extracted
    raise UserError(
        f"{archive} is damaged ({reason}): put the original there (for MNIST, `git checkout -- data` "
        "restores the repository's), delete it to have it downloaded, or point data.root to another folder"
    )


def download(archive: Path, md5: str, mirrors: list[str], scratch: str) -> None:
    """Download a missing archive from the first mirror that has it, via a temporary folder on the same disk."""
    for mirror in mirrors:
        try:
            download_url(f"{mirror}{archive.name}", scratch, md5=md5)
        except (OSError, RuntimeError):  # no network, no such file, wrong checksum
            continue
        Path(scratch, archive.name).replace(archive)
        return
    unpacked = archive.with_suffix("")
    if unpacked.exists():
        raise UserError(
            f"{unpacked} {fault_of(unpacked, unpacked.read_bytes())}, and {archive.name}, from which it "
            "could be restored, is missing and could not be downloaded: put one of the two there"
        )
    raise UserError(
        f"{archive} is missing and could not be downloaded: put the original there (for MNIST, "
        "`git checkout -- data` restores the repository's), or point data.root to a folder that has it"
    )


def fault_of(path: Path, content: bytes) -> str | None:
    """Say how an IDX file deviates from the type and shape expected from its name; None if it does not.

    IDX: two zero bytes, the type (8: bytes), the number of axes, then each axis as a big-endian 4-byte integer.
    """
    axes = 3 if "images" in path.name else 1
    expected = f"unsigned bytes, {f'N x {SIDE} x {SIDE}' if axes == 3 else 'one per image'}, are expected"
    try:
        zeros, kind, count = struct.unpack_from(">H2B", content)
        shape = struct.unpack_from(f">{count}I", content, 4)
    except struct.error:
        return f"is not an IDX file ({expected})"
    if zeros or kind not in IDX_TYPES:
        return f"is not an IDX file ({expected})"
    sizes = " x ".join(map(str, shape))
    missing = 4 + 4 * count + math.prod(shape) - len(content)
    if (kind, count) == (UNSIGNED, axes) and missing:
        return f"is {abs(missing):,} bytes too {'short' if missing > 0 else 'long'} for its shape, {sizes}"
    if (kind, count) == (UNSIGNED, axes) and shape[1:] in ((), (SIDE, SIDE)):
        return None
    return f"is an IDX file of {IDX_TYPES[kind]}, {sizes} ({expected})"


def is_complete(unpacked: Path, archive: Path) -> bool:
    """Tell whether an unpacked file is the IDX file it should be, with the CRC of its archive if that exists."""
    try:
        content = unpacked.read_bytes()
        trailer = archive.read_bytes()[-8:] if archive.exists() else None
    except OSError:
        return False
    # A gzip file ends with the CRC and the length of its content (RFC 1952, 2.3.1).
    sound = trailer is None or trailer == struct.pack("<2I", zlib.crc32(content), len(content))
    return sound and fault_of(unpacked, content) is None

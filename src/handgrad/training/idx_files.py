"""IDX files of MNIST and its cousins: verified, unpacked and downloaded; no file of the user is overwritten."""

import gzip
import logging
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import torch
from filelock import FileLock
from torchvision.datasets.utils import download_url, extract_archive

from handgrad.errors import UserError
from handgrad.nn.mlp import INPUTS

log = logging.getLogger(__name__)


LOCK = ".lock"
SCRATCH = ".unpacking."  # begins the name of a folder that is gone when its work is done


@contextmanager
def unpack_lock(folder: Path) -> Iterator[None]:
    """Keep other processes that unpack out of a folder, and clear away what a killed one left half unpacked.

    Args:
        folder: made if it is not there; not left behind if nothing comes of it.

    Raises:
        UserError: the folder cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK) as lock:
            try:
                for left in folder.glob(f"{SCRATCH}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
            finally:
                with suppress(OSError):  # before the release, as in `results.claimed`
                    Path(lock.lock_file).unlink()
    except OSError as error:
        raise UserError(
            f"cannot unpack in {folder} ({error.strerror or error}): make {folder} writable "
            "or point data.root to a folder that is"
        ) from error
    finally:
        for path in missing:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()


def ensure_unpacked(archive: Path, md5: str, mirrors: list[str]) -> None:
    """Make sure that the file beside an archive, without .gz, is whole; unpack or download where it is not.

    No file that is there is ever overwritten: an archive is used as it is, whoever packed it, and an unpacked file that
    is not its content is set aside. Whatever is written appears under its final name only when complete.

    Args:
        archive: path of the .gz file; it need not exist.
        md5: the original archive's checksum.
        mirrors: web folders that hold the archive.

    Raises:
        UserError: the file is neither there nor to be had, or is damaged.
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
            log.warning("%s is not what %s holds: it is unpacked anew, the other is now %s", unpacked, archive, kept)
        extracted.replace(unpacked)


def unpack(archive: Path, scratch: Path) -> Path:
    """Unpack an archive into a scratch folder.

    Raises:
        UserError: it is not a whole gzip file that holds a whole IDX file of the right kind.
    """
    try:
        extracted = Path(extract_archive(str(archive), str(scratch)))
        reason = None if is_complete(extracted, archive) else "it does not hold an IDX file of the right kind and size"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = str(error)
    if reason is None:
        return extracted
    raise UserError(
        f"{archive} is damaged ({reason}): put the original there (for MNIST, `git checkout -- data` "
        "restores the repository's), delete it to have it downloaded, or point data.root to another folder"
    )


def download(archive: Path, md5: str, mirrors: list[str], scratch: str) -> None:
    """Fetch a missing archive from the first mirror that has it, by way of a scratch folder on the same disk.

    Raises:
        UserError: no mirror has it.
    """
    for mirror in mirrors:
        try:
            download_url(f"{mirror}{archive.name}", scratch, md5=md5)
        except (OSError, RuntimeError):  # no network, no such file, wrong checksum
            continue
        Path(scratch, archive.name).replace(archive)
        return
    raise UserError(
        f"{archive} is missing and could not be downloaded: put the original there (for MNIST, "
        "`git checkout -- data` restores the repository's), or point data.root to a folder that has it"
    )


def is_complete(unpacked: Path, archive: Path) -> bool:
    """Tell whether an unpacked IDX file has the magic number and size it should have, and its archive's checksum.

    IDX: two zero bytes, the type (8: bytes), the number of axes, then each axis as a big-endian 4-byte integer.
    """
    try:
        content = unpacked.read_bytes()
        axes = 3 if "images" in unpacked.name else 1
        magic, *shape = struct.unpack_from(f">{1 + axes}I", content)
        trailer = last_bytes(archive, 8) if archive.exists() else None
    except (OSError, struct.error):
        return False
    expected = 4 * (1 + axes) + int(torch.tensor(shape).prod())
    if magic != 0x0800 + axes or len(content) != expected or (axes == 3 and shape[1] * shape[2] != INPUTS):
        return False
    # gzip ends with the checksum and the length of what was packed (RFC 1952, 2.3.1)
    return trailer is None or trailer == struct.pack("<2I", zlib.crc32(content), len(content))


def last_bytes(path: Path, count: int) -> bytes:
    """The end of a file, without reading the rest."""
    with path.open("rb") as file:
        file.seek(-count, os.SEEK_END)
        return file.read()

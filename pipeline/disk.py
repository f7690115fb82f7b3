"""A disk that takes no more: told in one line, as it is neither a fault of the program nor of its input."""

import errno
import os

from training.errors import BadInput, TheodoliteError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_IN_THE_WAY = {
    errno.EISDIR: "a folder stands where a file belongs",
    errno.ENOTDIR: "a file stands where a folder belongs",
    errno.EEXIST: "a file stands where a folder belongs",
}


class DiskFull(TheodoliteError):
    """Nothing more can be written; what was saved before is still there (exit 1)."""


def disk_error(error: BaseException) -> TheodoliteError | None:
    """What a failure has to do with the disk: DiskFull, BadInput for a place that cannot be written, or None.

    Causes are searched too, and their texts: orbax and tensorstore pass an OSError on as words alone.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        place = f" at {cause.filename}" if isinstance(cause, OSError) and cause.filename else ""
        said = next((os.strerror(code) for code in _FULL if code == number or os.strerror(code) in str(cause)), None)
        if said is not None:
            return DiskFull(
                f"the disk takes no more{place}: {said}. Make room and give the same command again: a run goes on from "
                "its last saved state"
            )
        if number in _FORBIDDEN:
            return BadInput(f"no permission{place}: {os.strerror(number)}; make it writable, or choose another folder")
        if number in _IN_THE_WAY and isinstance(cause, OSError):
            return BadInput(f"{_IN_THE_WAY[number]}: {cause.filename2 or cause.filename}; move it away")
        cause = cause.__cause__ or cause.__context__
    return None

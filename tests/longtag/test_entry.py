import errno

import pytest

from longtag.entry import readable_errors
from longtag.errors import UsageError

from .conftest import CONF


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("tokens=0: expected 1 or more"), 2, "error: tokens=0: expected 1 or more\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/run"), 2, "error: /x/run: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_becomes_one_message_and_an_exit_code(capsys, error, code, message):
    with pytest.raises(SystemExit) as left, readable_errors(CONF):
        raise error
    assert left.value.code == code
    assert capsys.readouterr().err.startswith(message)


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(OSError, match="broken pipe"), readable_errors(CONF):
        raise OSError(errno.EPIPE, "broken pipe")

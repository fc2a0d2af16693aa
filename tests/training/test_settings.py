import pytest

from localearn.errors import UserError
from localearn.training import Settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epoch": 3}, "fit has no option 'epoch'; did you mean 'epochs'?"),
        ({"epochs": 2.0}, "epochs must be a whole number, not 2.0"),
        ({"epochs": 0}, "epochs must be 1 or more, not 0"),
        ({"batch_size": 2**63}, "batch_size must be below 2^63, not 9223372036854775808"),
        ({"optim": "adam"}, "optim must be a callable, not 'adam'"),
        ({"out": 3}, "out must be a path or null, not 3"),
    ],
)
def test_settings_tell_what_they_cannot_take(options, told):
    with pytest.raises(UserError) as error:
        Settings.of(**options)
    assert told in str(error.value)

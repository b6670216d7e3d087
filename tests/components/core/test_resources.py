"""What the machine has."""

from raypath.components.core.resources import free_memory


def test_free_memory_is_that_of_the_machine() -> None:
    assert 1 << 20 < free_memory() < 1 << 45

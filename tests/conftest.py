"""What every room's tests share."""

import pytest

pytest.register_assert_rewrite("conformance")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def start():
    """`studies.started`: a test that fails leaves no study behind that goes on beside the next."""
    from studies import started

    with started() as start:
        yield start

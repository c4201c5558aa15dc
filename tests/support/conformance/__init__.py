"""What every core and every dataset must pass, as classes to inherit (`cores`, `datasets`).

    from conformance.cores import CoreContract

    class TestMyCore(CoreContract):
        task = my_core.task.TASK
        fields = {"epochs": 1}              # a cell of well under a second

        @pytest.fixture(scope="class")
        @classmethod
        def data(cls): ...

An outsider's core or loader passes the same; `tests/support` must be on pytest's `pythonpath`.
"""

"""The keys of many cells and stages at once: those that `cell_key` and `flatten` give one by one.

The arms of a study differ in a few fields and its cells in one number more, so what neighbours
have in common is encoded and hashed once.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from operator import is_not
from typing import Any, NamedTuple

from imaging_core.fields import field_names, values_of
from imaging_core.task import Stage, Task
from sweeps.engine.stages import flatten
from sweeps.ledger.schema import canonical, cell_keys

HOLE = "\0"
"""Where the seed goes in a stage's inputs; JSON text never holds this character."""


class _Seed(int):
    """A seed that is known again among a stage's inputs."""


ANY_SEED = _Seed(0)


def differing(values: Sequence[Any], before: Sequence[Any]) -> list[int]:
    """Where the values are other objects than before."""
    return list(compress(range(len(values)), map(is_not, values, before)))


class _Text:
    """The items of mappings as canonical JSON; values of the mapping before are not encoded again.

    Identity decides, so 1, 1.0 and True never stand for one another. No value may change later.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._values: tuple[Any, ...] = ()
        self._heads: list[tuple[int, str]] = []  # of each item: its place, and its name as JSON
        self._items: list[str] = []

    def take(self, names: tuple[str, ...], values: tuple[Any, ...]) -> bool:
        """Whether anything is not as in the mapping before."""
        if names != self._names or not names:
            self._names, self._values = names, (object(),) * len(names)
            rank = {name: i for i, name in enumerate(sorted(names))}
            self._heads = [(rank[name], f"{canonical(name)}:") for name in names]
            self._items = [""] * len(names)
        changed = differing(values, self._values)
        for i in changed:
            place, head = self._heads[i]
            self._items[place] = head + (HOLE if values[i] is ANY_SEED else canonical(values[i]))
        self._values = values
        return bool(changed) or not names

    def __str__(self) -> str:
        return ",".join(self._items)


class CellKeys:
    """Keys of one core's cells."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._config = _Text()

    def __call__(self, config: Any, seeds: Sequence[int], data_fingerprint: str) -> list[str]:
        """`cell_key` of this configuration with each seed."""
        names = field_names(type(config))
        self._config.take(names, values_of(config, names))
        text = f"{{{self._config}}}"
        return cell_keys(self._task.name, self._task.version, text, seeds, data_fingerprint)


class StageTemplate:
    """One stage of an arm, whatever the seed.

    Attributes:
        needs: as in `Stage.needs`, in its order.
        varies: whether its key depends on the seed.
    """

    __slots__ = ("_after", "_keys", "_sorted", "_start", "_tail", "name", "needs", "varies")

    def __init__(
        self, name: str, start: Any, after: Sequence[str], needs: "Needs", tail: str
    ) -> None:
        """`start` is the hash of the identity's text up to the first seed among the inputs, `after`
        what follows each seed there; `tail` comes after the needs.
        """
        self.name = name
        self.needs = tuple([need for _, need in needs])
        self.varies = bool(after) or any(need.varies for need in self.needs)
        self._start = start
        self._after = ("", *after) if after else ("",)
        self._sorted = [(f'{canonical(n)}:"', need) for n, need in sorted(needs)]
        self._tail = tail
        self._keys: dict[int, str] = {}

    def key(self, seed: int) -> str:
        """The stage's key with `seed`."""
        seed = seed if self.varies else 0
        found = self._keys.get(seed)
        if found is None:
            needs = ",".join([f'{head}{need.key(seed)}"' for head, need in self._sorted])
            digest = self._start.copy()
            rest = f'{str(seed).join(self._after)}}},"needs":{{{needs}}},{self._tail}'
            digest.update(rest.encode())
            found = self._keys[seed] = f"{self.name}-{digest.hexdigest()[:24]}"
        return found


Needs = tuple[tuple[str, StageTemplate], ...]
"""What a stage needs, by name, in its order."""


class _Placed(NamedTuple):
    """A stage of one arm, and its template."""

    inputs: Mapping[str, Any]
    needs: Needs
    template: StageTemplate


class StageKeys:
    """Templates of one core's stages on one dataset."""

    def __init__(self, task: Task, data_fingerprint: str) -> None:
        self._task, self._data = task, data_fingerprint
        self._names = field_names(task.config)
        self._of_name: dict[str, _Named] = {}
        self._values: tuple[Any, ...] = ()  # the arm before
        self._placed: list[_Placed] = []
        self._tried: set[tuple[str, ...]] = set()

    def __call__(self, config: Any, seed: int) -> list[StageTemplate]:
        """The stages of this configuration, each once, needs before whatever needs them.

        Args:
            config: an arm's configuration.
            seed: any seed; with it the first arm of each kind is compared with `flatten`.

        Raises:
            ValueError: the core derives a stage from the seed, or from a field of `passed_on`,
                otherwise than `Task` allows.
        """
        values = values_of(config, self._names)
        other = {self._names[i]: values[i] for i in differing(values, self._values)}
        if self._placed and self._task.passed_on.issuperset(other):
            self._placed = self._handed_on(other)
        else:
            other = {}
            self._placed = self._derived(config)
        self._values = values
        # Two stages may share a template.
        templates = list(dict.fromkeys([stage.template for stage in self._placed]))
        kind = (*other, *[template.name for template in templates])
        if kind not in self._tried:
            self._tried.add(kind)
            self._compare(config, seed, templates, other)
        return templates

    def _derived(self, config: Any) -> list[_Placed]:
        """The stages as the core derives them."""
        found: dict[int, _Placed] = {}  # by the stage's identity

        def place(stage: Stage) -> StageTemplate:
            if id(stage) not in found:
                needs = tuple([(name, place(need)) for name, need in stage.needs.items()])
                template = self._template(stage.name, stage.inputs, needs)
                found[id(stage)] = _Placed(stage.inputs, needs, template)
            return found[id(stage)].template

        stages = self._task.stages(config, ANY_SEED)
        for stage in stages.values():
            place(stage)
        return list(found.values())

    def _handed_on(self, other: Mapping[str, Any]) -> list[_Placed]:
        """The stages of the arm before, where fields that the core only hands on have `other`
        values: those that hold none of them, and need none that does, stay what they are.
        """
        now: dict[StageTemplate, StageTemplate] = {}
        placed = []
        for stage in self._placed:
            inputs, needs, template = stage
            own = [name for name in other if name in inputs]
            moved = [need for _, need in needs if now[need] is not need]
            if own or moved:
                inputs = {**inputs, **{name: other[name] for name in own}}
                needs = tuple([(name, now[need]) for name, need in needs])
                stage = _Placed(inputs, needs, self._template(template.name, inputs, needs))
            now[template] = stage.template
            placed.append(stage)
        return placed

    def _template(self, name: str, inputs: Mapping[str, Any], needs: Needs) -> StageTemplate:
        if name not in self._of_name:
            self._of_name[name] = _Named(self._task, name, self._data)
        return self._of_name[name](inputs, needs)

    def _compare(
        self, config: Any, seed: int, templates: Sequence[StageTemplate], other: Iterable[str]
    ) -> None:
        expected = flatten(self._task, self._task.stages(config, seed), self._data)
        if list(dict.fromkeys(t.key(seed) for t in templates)) == list(expected):
            return
        names = " or ".join(["the seed", *other])
        raise ValueError(
            f"{self._task.name}: a stage may hold {names} among its inputs as it is, and "
            f"nothing else of it may depend on {names}"
        )


class _Named:
    """Templates of the stages of one name; equal ones are one object."""

    def __init__(self, task: Task, name: str, data_fingerprint: str) -> None:
        self._name = name
        core, data = canonical(task.name), canonical(data_fingerprint)
        self._head = f'{{"core":{core},"data":{data},"inputs":{{'
        self._tail = f'"stage":{canonical(name)},"version":{task.version}}}'
        self._text = _Text()
        self._needs: Needs = ()
        self._last: StageTemplate | None = None
        self._known: dict[tuple[Any, ...], StageTemplate] = {}

    def __call__(self, inputs: Mapping[str, Any], needs: Needs) -> StageTemplate:
        """The template of the stage with `inputs` and `needs`."""
        changed = self._text.take(tuple(inputs), tuple(inputs.values()))
        if changed or self._last is None or needs != self._needs:
            self._last, self._needs = self._template(needs), needs
        return self._last

    def _template(self, needs: Needs) -> StageTemplate:
        before, *after = f"{self._head}{self._text}".split(HOLE)
        start = hashlib.sha256(before.encode())
        # The digest instead of the text, which may be of thousands of characters for every arm.
        identity = (start.digest(), *after, *needs)
        found = self._known.get(identity)
        if found is None:
            found = StageTemplate(self._name, start, after, needs, self._tail)
            self._known[identity] = found
        return found

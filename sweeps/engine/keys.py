"""The keys of many cells and stages at once: those that `cell_key` and `flatten` give one by one.

The arms of a study differ in a few fields and its cells in one number more, so what neighbours
have in common is encoded and hashed once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import is_not
from typing import Any

from imaging_core.fields import as_dict
from imaging_core.task import Stage, Task
from sweeps.engine.stages import flatten
from sweeps.ledger.schema import canonical, cell_keys

HOLE = "\0"
"""Where the seed goes in a stage's inputs; JSON text never holds this character."""


class _Seed(int):
    """A seed that is known again among a stage's inputs."""


ANY_SEED = _Seed(0)


class _Text:
    """The items of mappings as canonical JSON; values of the mapping before are not encoded again.

    Identity decides, so 1, 1.0 and True never stand for one another. No value may change later.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._values: tuple[Any, ...] = ()
        self._place: list[int] = []
        self._items: list[str] = []

    def take(self, mapping: Mapping[str, Any]) -> bool:
        """Whether anything is not as in the mapping before."""
        names, values = tuple(mapping), tuple(mapping.values())
        if names != self._names or not names:
            self._names, self._values = names, (object(),) * len(names)
            rank = {name: i for i, name in enumerate(sorted(names))}
            self._place = [rank[name] for name in names]
            self._items = [""] * len(names)
        changed = list(compress(range(len(values)), map(is_not, values, self._values)))
        for i in changed:
            text = HOLE if values[i] is ANY_SEED else canonical(values[i])
            self._items[self._place[i]] = f"{canonical(names[i])}:{text}"
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
        self._config.take(as_dict(config))
        text = f"{{{self._config}}}"
        return cell_keys(self._task.name, self._task.version, text, seeds, data_fingerprint)


class StageTemplate:
    """One stage of an arm, whatever the seed.

    Attributes:
        needs: as in `Stage.needs`, in its order.
        varies: whether its key depends on the seed.
    """

    def __init__(
        self, name: str, head: str, tail: str, inputs: str, needs: Mapping[str, "StageTemplate"]
    ) -> None:
        before, *after = inputs.split(HOLE)
        self.name = name
        self.needs = tuple(needs.values())
        self.varies = bool(after) or any(need.varies for need in self.needs)
        self._digest = hashlib.sha256(f'{head},"inputs":{{{before}'.encode())
        self._after = ("", *after) if after else ("",)
        self._sorted = [(canonical(name), need) for name, need in sorted(needs.items())]
        self._tail = tail
        self._keys: dict[int, str] = {}

    def key(self, seed: int) -> str:
        """The stage's key with `seed`."""
        seed = seed if self.varies else 0
        found = self._keys.get(seed)
        if found is None:
            needs = ",".join([f'{name}:"{need.key(seed)}"' for name, need in self._sorted])
            digest = self._digest.copy()
            rest = f'{str(seed).join(self._after)}}},"needs":{{{needs}}},{self._tail}'
            digest.update(rest.encode())
            found = self._keys[seed] = f"{self.name}-{digest.hexdigest()[:24]}"
        return found


class StageKeys:
    """Templates of one core's stages on one dataset."""

    def __init__(self, task: Task, data_fingerprint: str) -> None:
        self._task, self._data = task, data_fingerprint
        self._head = f'{{"core":{canonical(task.name)},"data":{canonical(data_fingerprint)}'
        self._texts: dict[str, _Text] = {}
        self._known: dict[tuple[Any, ...], StageTemplate] = {}
        self._last: dict[str, tuple[tuple[Any, ...], StageTemplate]] = {}  # of each stage's name
        self._shapes: set[tuple[str, ...]] = set()

    def __call__(self, config: Any, seed: int) -> list[StageTemplate]:
        """The stages of this configuration, each once, needs before whatever needs them.

        Args:
            config: an arm's configuration.
            seed: any seed; with it the first arm of each shape is compared with `flatten`.

        Raises:
            ValueError: the core derives a stage from the seed otherwise than `Task` allows.
        """
        found: dict[int, StageTemplate] = {}  # by the stage's identity; two may share a template
        stages = self._task.stages(config, ANY_SEED)
        for stage in stages.values():
            self._add(stage, found)
        templates = list(dict.fromkeys(found.values()))
        shape = tuple(template.name for template in templates)
        if shape not in self._shapes:
            self._shapes.add(shape)
            expected = flatten(self._task, self._task.stages(config, seed), self._data)
            if list(dict.fromkeys(t.key(seed) for t in templates)) != list(expected):
                raise ValueError(
                    f"{self._task.name}: a stage may hold the seed among its inputs as it is, and "
                    "nothing else of it may depend on the seed"
                )
        return templates

    def _add(self, stage: Stage, found: dict[int, StageTemplate]) -> StageTemplate:
        if id(stage) in found:
            return found[id(stage)]
        needs = {name: self._add(need, found) for name, need in stage.needs.items()}
        text = self._texts.setdefault(stage.name, _Text())
        changed = text.take(stage.inputs)
        links = (*needs, *map(id, needs.values()))
        last = self._last.get(stage.name)
        if changed or last is None or last[0] != links:
            template = self._template(stage.name, str(text), needs, links)
            self._last[stage.name] = links, template
        else:
            template = last[1]
        found[id(stage)] = template
        return template

    def _template(
        self, name: str, text: str, needs: Mapping[str, StageTemplate], links: tuple[Any, ...]
    ) -> StageTemplate:
        identity = (name, text, links)
        if identity not in self._known:
            tail = f'"stage":{canonical(name)},"version":{self._task.version}}}'
            self._known[identity] = StageTemplate(name, self._head, tail, text, needs)
        return self._known[identity]

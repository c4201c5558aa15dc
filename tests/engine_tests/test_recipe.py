"""A recipe is JSON on its way, and the same after it."""

import json

import toy_study

from sweeps.engine.plan import make_plan
from sweeps.engine.recipe import Recipe, Recipes
from sweeps.engine.source import Grid
from sweeps.engine.study import Request
from sweeps.ledger.files import Store


def test_a_recipe_is_the_same_after_its_way(tmp_path):
    request = Request(seeds="1", settings=("ridge=1", "pooling=8"))
    plan = make_plan(toy_study.STUDY, request, results=str(tmp_path), retry_failed=False)
    recipes = Recipes(plan.study, request, results=str(tmp_path), token="t", deadline_s=9.0)
    step = Grid(plan, Store(tmp_path).child("toy")).next()
    *stages, cell = recipes.items(step, cost_s=3.0)
    assert [item.id.stage for item in (*stages, cell)] == ["toy-pixels", "toy-order", None]
    assert cell.needs == tuple(item.id for item in stages)
    assert (cell.arm, cell.cost_s, cell.deadline_s) == ("ridge=1.0,pooling=8", 3.0, 9.0)
    for item, stage in zip((*stages, cell), (*(s.id for s in stages), None), strict=True):
        recipe = Recipe.from_json(json.loads(json.dumps(item.payload)))
        assert recipe.stage == stage
        assert (recipe.key, recipe.token) == (cell.id, "t")
        assert recipe.to_json() == item.payload

"""The task of the selection core; whoever loads it, a worker too, saves checkpoints often."""

from dataclasses import replace

from selection_core.task import TASK as SELECTION
from sweeps.engine import checkpoints

checkpoints.EVERY_S, checkpoints.COST = 0.3, 1e9

TASK = replace(SELECTION, name="often_saved")

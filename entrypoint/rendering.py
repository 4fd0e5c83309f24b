"""The recipe of a plan."""

from dataclasses import replace

import yaml

from entrypoint import sizing, templates
from entrypoint.data.lengths import Lengths
from entrypoint.estimate import Estimate
from entrypoint.machines import Machine
from entrypoint.memory import UNDER
from entrypoint.plan import Plan, decided, option_of_key
from entrypoint.render import check_agreement, render


def as_wide_as_fits(plan: Plan, machine: Machine, rows: Lengths) -> tuple[Plan, str, Estimate]:
    """The plan, its recipe and what it takes on such a machine; with frozen weights in fp32, if
    that is faster and there is memory for it even if the estimate is too low. A run that is resumed
    on such a machine goes on as it began.

    Args:
        rows: of the plan's data set.
    """
    recipe = recipe_of(plan)
    estimate = sizing.estimate_of(plan, recipe, machine, rows)
    if not sizing.gains_by_width(estimate):
        return plan, recipe, estimate
    wider = replace(plan, variables={**plan.variables, "frozen_dtype": "fp32"})
    wide = recipe_of(wider)
    if wide == recipe:  # --set or a template of one's own says otherwise
        return plan, recipe, estimate
    found = sizing.estimate_of(wider, wide, machine, rows)
    chosen = began_wide(plan)
    if chosen is None:
        chosen = found.there is not None and found.footprint.total <= UNDER * found.there
    return (wider, wide, found) if chosen else (plan, recipe, estimate)


def began_wide(plan: Plan) -> bool | None:
    """Whether the run that is resumed has its frozen weights in fp32; None if there is none."""
    if not plan.settings.resume or not plan.folder.recipe.is_file():
        return None
    try:
        began = yaml.safe_load(plan.folder.recipe.read_text("utf-8"))
    except yaml.YAMLError:
        return None
    return began.get("frozen_dtype") == "fp32" if isinstance(began, dict) else None


def recipe_of(plan: Plan) -> str:
    """The rendered recipe of a plan.

    Raises:
        SettingsError: the template or an override is not valid, or contradicts the plan.
    """
    settings, template = plan.settings, plan.template
    recipe = render(
        templates.read(template), plan.variables, settings.overrides, name=str(template)
    )
    options = option_of_key(settings)
    check_agreement(recipe, decided(plan), options, name=f"{template} with --set")
    return recipe

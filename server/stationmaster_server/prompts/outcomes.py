"""What came of renders, noted by whoever knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.prompts import experiment_store, figure_store, store
from stationmaster_server.prompts.assignment import assign
from stationmaster_server.prompts.experiment_model import Experiment, Metric, Variant, require_started
from stationmaster_server.prompts.experiments import found_experiment
from stationmaster_server.prompts.figure_model import Exposure, Outcome
from stationmaster_server.prompts.model import Prompt, Target, prompt_name, version_name
from stationmaster_server.prompts.rules import found, found_version


@dataclass(frozen=True, slots=True)
class Noted:
    """What an outcome was noted of, and whether it counts for the experiment."""

    prompt_version: str
    variant: str
    counted: bool


class Outcomes:
    """Takes outcomes."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    async def record(self, caller: Caller, prompt_id: str, outcome: Outcome) -> Noted:
        """Note one. Raises NotFound (prompt, version, experiment), InvalidArgument, FailedPrecondition."""
        tenant = caller.tenant
        _check(outcome)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Noted)
            if again is not None:
                return again
            prompt = found(await store.get(tx, tenant.organization_id, prompt_id), prompt_id)
            outcome = await self._attributed(tx, caller, prompt, outcome)
            counted = await figure_store.add_outcome(tx, tenant.organization_id, outcome)
            if not counted:  # the unit's second: for the version it counts all the same
                alone = replace(outcome, experiment_id=None)
                await figure_store.add_outcome(tx, tenant.organization_id, alone)
            details = {"metric": outcome.metric.value, "version": outcome.version, "counted": counted}
            await self._audit.write(
                tx, caller, AuditEntry("prompt.record_outcome", prompt_name(prompt_id), details=details)
            )
            counts = counted and outcome.experiment_id is not None
            noted = Noted(version_name(prompt_id, outcome.version), outcome.variant, counts)
            await remember(tx, tenant, caller.request_key, noted)
            return noted

    async def _attributed(self, tx: Transaction, caller: Caller, prompt: Prompt, outcome: Outcome) -> Outcome:
        """The outcome with its version, and with the variant that its unit was given."""
        organization_id = caller.tenant.organization_id
        outcome = replace(outcome, id=new_id(), prompt_uid=prompt.uid)
        if outcome.experiment_id is not None:
            experiment = await experiment_store.get(tx, organization_id, outcome.experiment_id)
            experiment = found_experiment(experiment, outcome.experiment_id)
            variant = await self._given(tx, caller, prompt, experiment, outcome.unit)
            if variant is not None:
                _require_same(experiment, variant, outcome)
                return replace(outcome, version=variant.version, label=experiment.label, variant=variant.variant_id)
            outcome = replace(outcome, experiment_id=None)
        version = prompt.version_of(Target(outcome.version)) or prompt.latest_version
        if version != prompt.latest_version:
            known = await store.version(tx, organization_id, prompt.prompt_id, version)
            found_version(known, prompt.prompt_id, version)
        return replace(outcome, version=version)

    @staticmethod
    async def _given(
        tx: Transaction, caller: Caller, prompt: Prompt, experiment: Experiment, unit: str
    ) -> Variant | None:
        """The variant that a unit was given; None when it takes no part."""
        if experiment.prompt_uid != prompt.uid:
            raise InvalidArgument.field("experiment", f"is about prompts/{experiment.prompt_id}")
        if not unit:
            raise InvalidArgument.field("unit", "is required with an experiment: whom its variant was given to")
        require_started(experiment)
        organization_id = caller.tenant.organization_id
        given = await figure_store.exposed_to(tx, organization_id, experiment.id, unit)
        if given is not None:
            return experiment.variant(given)
        # The render may be so fresh that it is not noted yet; the unit gets the same variant whoever works it out.
        variant = assign(experiment, unit)
        if variant is not None:
            exposure = Exposure(organization_id, experiment.id, unit, variant.variant_id)
            await figure_store.add_exposures(tx, [exposure])
        return variant


def _require_same(experiment: Experiment, variant: Variant, outcome: Outcome) -> None:
    """What was rendered is not said to be another version or label than what the unit was given."""
    faults = []
    if outcome.version not in (0, variant.version):
        why = f"{experiment.name} gave the unit version {variant.version}: leave this out, or the experiment"
        faults.append(FieldViolation("version", why))
    if outcome.label not in ("", experiment.label):
        why = f"{experiment.name} is about the label {experiment.label!r}: leave this out, or the experiment"
        faults.append(FieldViolation("label", why))
    if faults:
        text = "; ".join(f"{fault.field}: {fault.description}" for fault in faults)
        raise InvalidArgument(Reason.INVALID_FIELD, text, *faults)


def _check(outcome: Outcome) -> None:
    amount = outcome.outcome
    fault = ""
    if not isfinite(amount):
        fault = "is no number"
    elif outcome.metric is Metric.SUCCESS and amount not in (0.0, 1.0):
        fault = "of SUCCESS is 1 or 0"
    elif outcome.metric in (Metric.LATENCY, Metric.COST) and amount < 0:
        fault = f"of {outcome.metric} is not negative"
    if fault:
        raise InvalidArgument.field("outcome", fault)

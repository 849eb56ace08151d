"""Experiments: made, started, stopped and concluded. Every change is one transaction with its audit row."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.optimistic import until_unchanged
from stationmaster_server.db.requests import look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.prompts import experiment_store, store
from stationmaster_server.prompts.assignment import TRAFFIC, free_slots
from stationmaster_server.prompts.experiment_model import (
    SLOTS,
    Experiment,
    ExperimentState,
    Variant,
    experiment_name,
    transition,
)
from stationmaster_server.prompts.heads import Heads
from stationmaster_server.prompts.model import LATEST, PRODUCTION, Prompt
from stationmaster_server.prompts.rules import found, in_use, require_mover
from stationmaster_server.prompts.service import PromptService


class Experiments:
    """Experiments of an organization."""

    def __init__(self, database: Database, audit: AuditLog, heads: Heads, prompts: PromptService) -> None:
        self._database = database
        self._audit = audit
        self._heads = heads
        self._prompts = prompts

    async def create(self, caller: Caller, new: Experiment) -> Experiment:
        """Make one, which does nothing yet. Raises NotFound (the prompt, a version), InvalidArgument."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Experiment)
            if again is not None:
                return again
            prompt = found(await store.get(tx, tenant.organization_id, new.prompt_id), new.prompt_id)
            label = new.label or prompt.default_label or PRODUCTION
            made = replace(
                new,
                id=new_id(),
                prompt_uid=prompt.uid,
                user_id=tenant.user_id,
                label=label,
                state=ExperimentState.DRAFT,
                etag=new_id().hex,
            )
            _check(made, prompt)
            made = await experiment_store.insert(tx, tenant.organization_id, made)
            return await self._written(tx, caller, "experiment.create", made)

    async def get(self, caller: Caller, experiment_id: UUID) -> Experiment:
        """One experiment. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return found_experiment(
                await experiment_store.get(tx, caller.tenant.organization_id, experiment_id), experiment_id
            )

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Experiment]:
        """A page of experiments, the newest first by default. Raises InvalidArgument."""
        clause = experiment_store.LISTING.sql(filter_text, order_by, page, start=2)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await experiment_store.list_of(tx, caller.tenant.organization_id, clause)

    async def start(self, caller: Caller, experiment_id: UUID) -> Experiment:
        """Assign its variants from now on.

        Raises NotFound, FailedPrecondition (ILLEGAL_TRANSITION, PROMPT_MISSING, PROMPT_IN_USE), PermissionDenied.
        """
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Experiment)
            if again is not None:
                return again
            experiment, prompt = await self._locked(tx, caller, experiment_id)
            transition(experiment, ExperimentState.RUNNING)
            require_mover(caller, prompt, [experiment.label])  # its variants are served in the label's place
            if experiment.label not in prompt.labels:
                why = f"prompts/{prompt.prompt_id} has no label {experiment.label!r}: set it first"
                violation = PreconditionViolation("PROMPT_LABEL", experiment.name, why)
                raise FailedPrecondition(Reason.PROMPT_MISSING, why, violation)
            await self._require_apart(tx, tenant.organization_id, experiment)
            slots = await self._slots(tx, tenant.organization_id, experiment)
            changed = replace(experiment, state=ExperimentState.RUNNING, slots=slots)
            return await self._changed(tx, caller, "experiment.start", changed)

    async def stop(self, caller: Caller, experiment_id: UUID, reason: str = "") -> Experiment:
        """Give its label to all again. Raises NotFound, FailedPrecondition(ILLEGAL_TRANSITION)."""
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Experiment)
            if again is not None:
                return again
            experiment, _ = await self._locked(tx, caller, experiment_id)
            transition(experiment, ExperimentState.STOPPED)
            changed = replace(experiment, state=ExperimentState.STOPPED, slots=())
            return await self._changed(tx, caller, "experiment.stop", changed, reason)

    async def conclude(self, caller: Caller, experiment_id: UUID, winner: str = "") -> Experiment:
        """End it; with a winner its label moves there, in the same transaction.

        Raises NotFound, InvalidArgument, FailedPrecondition (ILLEGAL_TRANSITION, PROMPT_IN_USE, PROMPT_CYCLE,
        PROMPT_MISSING), PermissionDenied.
        """
        return await until_unchanged(lambda: self._conclude(caller, experiment_id, winner), "what the winner includes")

    async def _conclude(self, caller: Caller, experiment_id: UUID, winner: str) -> Experiment:
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            again = await look(tx, tenant, caller.request_key, Experiment)
            if again is not None:
                return again
            known = await experiment_store.get(tx, tenant.organization_id, experiment_id)
            before = found_experiment(known, experiment_id)
        transition(before, ExperimentState.CONCLUDED)
        won, parts = _winner(before, winner), None
        if won is not None:
            parts = await self._prompts.check_move(caller, before.prompt_id, before.label, won.version)
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Experiment)
            if again is not None:
                return again
            await self._prompts.settle(tx, caller, parts or {})
            experiment, prompt = await self._locked(tx, caller, experiment_id)
            transition(experiment, ExperimentState.CONCLUDED)
            if won is not None:
                await self._prompts.move(tx, caller, prompt, experiment.label, won.version, experiment.id)
            changed = replace(experiment, state=ExperimentState.CONCLUDED, slots=(), winner=winner)
            return await self._changed(tx, caller, "experiment.conclude", changed)

    async def _locked(self, tx: Transaction, caller: Caller, experiment_id: UUID) -> tuple[Experiment, Prompt]:
        """The experiment and its prompt; the prompt first, as whoever changes that locks it."""
        organization_id = caller.tenant.organization_id
        known = found_experiment(await experiment_store.get(tx, organization_id, experiment_id), experiment_id)
        prompt = await store.lock(tx, organization_id, known.prompt_id)
        experiment = await experiment_store.get(tx, organization_id, experiment_id, lock=True)
        if prompt is None or experiment is None:  # deleted meanwhile
            raise NotFound("Experiment", experiment_name(experiment_id))
        return experiment, prompt

    @staticmethod
    async def _require_apart(tx: Transaction, organization_id: UUID, experiment: Experiment) -> None:
        for other in await experiment_store.running(tx, organization_id, experiment.prompt_id):
            apart = experiment.exclusion_group and other.exclusion_group == experiment.exclusion_group
            if other.label == experiment.label and not apart:
                advice = (
                    f"{other.name} runs on its label {other.label!r}: stop that, or put both in one exclusion group"
                )
                raise in_use(experiment.prompt_id, advice)

    @staticmethod
    async def _slots(tx: Transaction, organization_id: UUID, experiment: Experiment) -> tuple[tuple[int, int], ...]:
        if not experiment.exclusion_group:
            return ((0, experiment.traffic),)
        taken = await experiment_store.taken(tx, organization_id, experiment.exclusion_group)
        slots = free_slots(taken, experiment.traffic)
        if slots is None:
            left = SLOTS - sum(end - first for each in taken for first, end in each)
            advice = f"its exclusion group {experiment.exclusion_group!r} has {left / SLOTS:.2%} of the units left"
            raise in_use(experiment.prompt_id, f"{advice}; stop another experiment, or take less")
        return tuple(slots)

    async def _changed(
        self, tx: Transaction, caller: Caller, action: str, changed: Experiment, reason: str = ""
    ) -> Experiment:
        organization_id = caller.tenant.organization_id
        written = await experiment_store.write_state(tx, organization_id, replace(changed, etag=new_id().hex))
        await self._heads.changed(tx, organization_id, changed.prompt_id)
        return await self._written(tx, caller, action, written, reason)

    async def _written(
        self, tx: Transaction, caller: Caller, action: str, experiment: Experiment, reason: str = ""
    ) -> Experiment:
        details = {"prompt": experiment.prompt_id, "label": experiment.label, "winner": experiment.winner}
        await self._audit.write(tx, caller, AuditEntry(action, experiment.name, reason=reason, details=details))
        await remember(tx, caller.tenant, caller.request_key, experiment)
        return experiment


def found_experiment(experiment: Experiment | None, experiment_id: UUID) -> Experiment:
    """The experiment. Raises NotFound."""
    if experiment is None:
        raise NotFound("Experiment", experiment_name(experiment_id))
    return experiment


def _winner(experiment: Experiment, winner: str) -> Variant | None:
    """The variant that won; None when none did. Raises InvalidArgument."""
    variant = experiment.variant(winner)
    if winner and variant is None:
        known = ", ".join(each.variant_id for each in experiment.variants)
        raise InvalidArgument.field("winner", f"there is no variant {winner!r}; there are {known}")
    return variant


def _check(new: Experiment, prompt: Prompt) -> None:
    faults = []
    if len(new.variants) < 2:
        faults.append(FieldViolation("experiment.variants", "name two variants at least; the first is the control"))
    names = [variant.variant_id for variant in new.variants]
    if len(set(names)) < len(names):
        faults.append(FieldViolation("experiment.variants", "each has a name of its own"))
    if TRAFFIC in names:
        text = f"{TRAFFIC!r} is what units are let in by: call the variant something else"
        faults.append(FieldViolation("experiment.variants", text))
    if new.label == LATEST:
        faults.append(FieldViolation("experiment.label", f"{LATEST!r} cannot be moved to a winner"))
    if not new.traffic:
        faults.append(FieldViolation("experiment.traffic_share", "is less than a ten thousandth"))
    for place, variant in enumerate(new.variants):
        if variant.version > prompt.latest_version:
            faults.append(FieldViolation(f"experiment.variants[{place}].version", prompt.lack_of(variant.version)))
    if faults:
        text = "; ".join(f"{fault.field}: {fault.description}" for fault in faults)
        raise InvalidArgument(Reason.INVALID_FIELD, text, *faults)

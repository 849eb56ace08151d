"""The queries of exposures, outcomes and figures. What servers count goes to the database in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts.experiment_model import Metric
from stationmaster_server.prompts.figure_model import Exposure, FigureKey, Figures, Measured, Outcome
from stationmaster_server.prompts.histogram import BUCKETS

BATCH = 5_000


async def add_exposures(tx: Transaction, exposures: Sequence[Exposure]) -> None:
    """Note who was given what; the first stays."""
    sql = """
    INSERT INTO prompt_exposures (organization_id, experiment_id, unit, variant)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])
    ON CONFLICT (organization_id, experiment_id, unit) DO NOTHING
    """
    columns = [(each.organization_id, each.experiment_id, each.unit, each.variant) for each in exposures]
    await tx.execute(sql, *map(list, zip(*columns, strict=True)))


async def add_figures(tx: Transaction, figures: Mapping[FigureKey, Figures]) -> None:
    """Count what was counted here with what all have."""
    sql = """
    INSERT INTO prompt_figures AS f (organization_id, prompt_uid, hour, version, label, renders, errors, latencies,
                                     model_calls, input_tokens, output_tokens, cost_micros)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (organization_id, prompt_uid, hour, version, label) DO UPDATE
    SET renders = f.renders + excluded.renders, errors = f.errors + excluded.errors,
        latencies = ARRAY(SELECT a + b FROM unnest(f.latencies, excluded.latencies) WITH ORDINALITY AS t (a, b, n)
                          ORDER BY n),
        model_calls = f.model_calls + excluded.model_calls, input_tokens = f.input_tokens + excluded.input_tokens,
        output_tokens = f.output_tokens + excluded.output_tokens, cost_micros = f.cost_micros + excluded.cost_micros
    """
    # In one order everywhere, so that two servers never wait for each other.
    ordered = sorted(
        figures.items(), key=lambda each: (each[0].prompt_uid, each[0].hour, each[0].version, each[0].label)
    )
    await tx.executemany(sql, [(*_key(key), *_counts(counted)) for key, counted in ordered])


async def add_outcome(tx: Transaction, organization_id: UUID, outcome: Outcome) -> bool:
    """Note an outcome; whether it is the first of its unit and metric, or counts for no experiment."""
    sql = """
    INSERT INTO prompt_outcomes
        (organization_id, id, prompt_uid, version, label, metric, outcome, experiment_id, variant, unit)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
    """
    args = (
        outcome.id,
        outcome.prompt_uid,
        outcome.version,
        outcome.label,
        outcome.metric.value,
        outcome.outcome,
        outcome.experiment_id,
        outcome.variant,
        outcome.unit,
    )
    return await tx.execute(sql, organization_id, *args) == "INSERT 0 1"


async def exposed_to(tx: Transaction, organization_id: UUID, experiment_id: UUID, unit: str) -> str | None:
    """The variant that a unit was given first."""
    sql = "SELECT variant FROM prompt_exposures WHERE organization_id = $1 AND experiment_id = $2 AND unit = $3"
    variant: str | None = await tx.fetchval(sql, organization_id, experiment_id, unit)
    return variant


async def exposures(tx: Transaction, organization_id: UUID, experiment_id: UUID) -> Mapping[str, int]:
    """How many units were given each variant."""
    sql = """
    SELECT variant, count(*) AS units FROM prompt_exposures
    WHERE organization_id = $1 AND experiment_id = $2 GROUP BY variant
    """
    return {row["variant"]: row["units"] for row in await tx.fetch(sql, organization_id, experiment_id)}


async def measured(tx: Transaction, organization_id: UUID, experiment_id: UUID) -> Sequence[Measured]:
    """What was measured of each variant."""
    sql = """
    SELECT variant, metric, count(*) AS outcomes, avg(outcome) AS mean, coalesce(var_samp(outcome), 0) AS variance
    FROM prompt_outcomes WHERE organization_id = $1 AND experiment_id = $2 GROUP BY variant, metric
    """
    rows = await tx.fetch(sql, organization_id, experiment_id)
    return [
        Measured(row["variant"], Metric(row["metric"]), row["outcomes"], row["mean"], row["variance"]) for row in rows
    ]


async def figures(
    tx: Transaction, organization_id: UUID, prompt_uid: UUID, start: datetime, end: datetime, most: int
) -> Sequence[tuple[FigureKey, Figures]]:
    """The hours of a prompt in a span, at most so many rows."""
    sql = """
    SELECT * FROM prompt_figures WHERE organization_id = $1 AND prompt_uid = $2 AND hour >= $3 AND hour < $4
    ORDER BY hour, version, label LIMIT $5
    """
    rows = await tx.fetch(sql, organization_id, prompt_uid, start, end, most)
    return [(_key_of(row), _figures_of(row)) for row in rows]


async def outcomes(
    tx: Transaction, organization_id: UUID, prompt_uid: UUID, start: datetime, end: datetime, most: int
) -> Sequence[tuple[datetime, int, str, Metric, int, float]]:
    """By hour, version, label and metric: how often, and the mean."""
    sql = """
    SELECT date_trunc('hour', created_at, 'UTC') AS hour, version, label, metric, count(*) AS outcomes,
           avg(outcome) AS mean
    FROM prompt_outcomes
    WHERE organization_id = $1 AND prompt_uid = $2 AND created_at >= $3 AND created_at < $4
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $5
    """
    rows = await tx.fetch(sql, organization_id, prompt_uid, start, end, most)
    return [
        (row["hour"], row["version"], row["label"], Metric(row["metric"]), row["outcomes"], row["mean"]) for row in rows
    ]


async def forget(tx: Transaction, keep: timedelta) -> int:
    """Delete some of what is older, or whose prompt or experiment is gone; how many rows (a system transaction)."""
    deleted = 0
    for sql, args in (
        ("SELECT ctid FROM prompt_figures WHERE hour < now() - $1::interval", (keep,)),
        ("SELECT ctid FROM prompt_outcomes WHERE created_at < now() - $1::interval AND experiment_id IS NULL", (keep,)),
        (f"SELECT ctid FROM prompt_figures f WHERE {_NO_PROMPT.format('f')}", ()),
        (f"SELECT ctid FROM prompt_outcomes o WHERE {_NO_PROMPT.format('o')}", ()),
        (f"SELECT ctid FROM prompt_exposures x WHERE {_NO_EXPERIMENT}", ()),
    ):
        table = sql.split()[3]
        tag = await tx.execute(f"DELETE FROM {table} WHERE ctid IN ({sql} LIMIT {BATCH})", *args)
        deleted = max(deleted, int(tag.rpartition(" ")[2]))
    return deleted


_NO_PROMPT = (
    "NOT EXISTS (SELECT FROM prompts p WHERE p.organization_id = {0}.organization_id AND p.uid = {0}.prompt_uid)"
)
_NO_EXPERIMENT = (
    "NOT EXISTS (SELECT FROM prompt_experiments e"
    " WHERE e.organization_id = x.organization_id AND e.id = x.experiment_id)"
)


def _key(key: FigureKey) -> tuple[Any, ...]:
    return key.organization_id, key.prompt_uid, key.hour, key.version, key.label


def _counts(counted: Figures) -> tuple[Any, ...]:
    latencies = counted.latencies + [0] * (BUCKETS - len(counted.latencies))
    return (
        counted.renders,
        counted.errors,
        latencies,
        counted.model_calls,
        counted.input_tokens,
        counted.output_tokens,
        counted.cost_micros,
    )


def _key_of(row: Any) -> FigureKey:
    return FigureKey(row["organization_id"], row["prompt_uid"], row["hour"], row["version"], row["label"])


def _figures_of(row: Any) -> Figures:
    return Figures(
        row["renders"],
        row["errors"],
        list(row["latencies"]),
        row["model_calls"],
        row["input_tokens"],
        row["output_tokens"],
        row["cost_micros"],
    )

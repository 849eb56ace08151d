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
Place = tuple[datetime, int, str]
"""The beginning of an hour or a day, a version and a label."""
_SUMS = ", ".join(f"sum(latencies[{bucket}])" for bucket in range(1, BUCKETS + 1))


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
    tx: Transaction, organization_id: UUID, prompt_uid: UUID, start: datetime, end: datetime, unit: str, most: int
) -> Sequence[tuple[Place, Figures]]:
    """What was counted of a prompt in a span, by `hour` or `day` (UTC), at most so many."""
    sql = f"""
    SELECT date_trunc($5, hour, 'UTC') AS start, version, label, ARRAY[{_SUMS}]::bigint[] AS latencies,
           sum(renders)::bigint AS renders, sum(errors)::bigint AS errors, sum(model_calls)::bigint AS model_calls,
           sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
           sum(cost_micros)::bigint AS cost_micros
    FROM prompt_figures WHERE organization_id = $1 AND prompt_uid = $2 AND hour >= $3 AND hour < $4
    GROUP BY 1, 2, 3 LIMIT $6
    """
    rows = await tx.fetch(sql, organization_id, prompt_uid, start, end, unit, most)
    return [((row["start"], row["version"], row["label"]), _figures_of(row)) for row in rows]


async def outcomes(
    tx: Transaction, organization_id: UUID, prompt_uid: UUID, start: datetime, end: datetime, unit: str, most: int
) -> Sequence[tuple[Place, Metric, int, float]]:
    """How often each metric was measured in a span, and the sum, by `hour` or `day` (UTC), at most so many."""
    sql = """
    SELECT date_trunc($5, created_at, 'UTC') AS start, version, label, metric, count(*) AS outcomes,
           sum(outcome) AS total
    FROM prompt_outcomes WHERE organization_id = $1 AND prompt_uid = $2 AND created_at >= $3 AND created_at < $4
    GROUP BY 1, 2, 3, 4 LIMIT $6
    """
    rows = await tx.fetch(sql, organization_id, prompt_uid, start, end, unit, most)
    return [
        ((row["start"], row["version"], row["label"]), Metric(row["metric"]), row["outcomes"], row["total"])
        for row in rows
    ]


async def forget(tx: Transaction, keep: timedelta) -> bool:
    """Delete some of what is older, or whose prompt or experiment is gone (a system transaction); whether more is."""
    found = [await _delete(tx, table, condition, keep) for table, condition in _OLD]
    found += [await _delete(tx, table, condition) for table, condition in _LEFT_BEHIND]
    return any(found)


async def _delete(tx: Transaction, table: str, condition: str, *args: timedelta) -> bool:
    sql = f"DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} t WHERE {condition} LIMIT {BATCH})"
    return await tx.execute(sql, *args) == f"DELETE {BATCH}"


_NO_PROMPT = "NOT EXISTS (SELECT FROM prompts p WHERE p.organization_id = t.organization_id AND p.uid = t.prompt_uid)"
_NO_EXPERIMENT = (
    "NOT EXISTS (SELECT FROM prompt_experiments e"
    " WHERE e.organization_id = t.organization_id AND e.id = t.experiment_id)"
)
_ENDED = (
    "EXISTS (SELECT FROM prompt_experiments e WHERE e.organization_id = t.organization_id"
    " AND e.id = t.experiment_id AND e.ended_at < now() - $1::interval)"
)
_OLD = (
    ("prompt_figures", "hour < now() - $1::interval"),
    ("prompt_outcomes", "created_at < now() - $1::interval AND experiment_id IS NULL"),
    ("prompt_outcomes", _ENDED),
    ("prompt_exposures", _ENDED),
)
_LEFT_BEHIND = (
    ("prompt_figures", _NO_PROMPT),
    ("prompt_outcomes", _NO_PROMPT),
    ("prompt_exposures", _NO_EXPERIMENT),
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

"""All measures, in the order they run."""

from __future__ import annotations

from benchmarks.measure import Measure
from benchmarks.measures import (
    audit,
    credentials,
    events,
    files,
    graph,
    process,
    prompts,
    replies,
    sessions,
    transport,
    watchers,
    work,
)

EVERY: tuple[type[Measure], ...] = (
    transport.UnaryCalls,
    transport.Burst,
    sessions.GetSession,
    sessions.CreateSession,
    credentials.AccessCredential,
    replies.Cycle,
    replies.FirstToken,
    replies.LongReply,
    replies.WireBytes,
    replies.LateMessage,
    events.DurableEvents,
    events.AcrossServers,
    audit.TreeCost,
    audit.CheckpointLag,
    audit.Sequenced,
    work.Drain,
    work.SubmitExecution,
    work.BatchSubmitExecutions,
    work.OneByOne,
    work.Bulk,
    work.Started,
    graph.AddDependency,
    prompts.RenderPrompt,
    files.Transfer,
    watchers.FanOut,
    watchers.IdleWatchers,
    process.Memory,
    process.Start,
)

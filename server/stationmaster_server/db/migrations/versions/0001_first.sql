DO $$
DECLARE
  privilege text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stationmaster_app') THEN
    BEGIN
      CREATE ROLE stationmaster_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database of the same PostgreSQL was migrated at the same moment
    END;
  END IF;
  IF NOT pg_has_role(current_user, 'stationmaster_app', privilege) THEN
    GRANT stationmaster_app TO CURRENT_USER;
  END IF;
END $$;

DO $$
DECLARE
  privilege text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stationmaster_system') THEN
    BEGIN
      CREATE ROLE stationmaster_system NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database of the same PostgreSQL was migrated at the same moment
    END;
  END IF;
  IF NOT pg_has_role(current_user, 'stationmaster_system', privilege) THEN
    GRANT stationmaster_system TO CURRENT_USER;
  END IF;
END $$;

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE agent_transcript_entries (
    organization_id UUID NOT NULL,
    project TEXT NOT NULL,
    transcript_id TEXT NOT NULL,
    subpath TEXT NOT NULL,
    position BIGINT NOT NULL,
    uuid TEXT,
    entry TEXT NOT NULL,
    CONSTRAINT agent_transcript_entries_pkey PRIMARY KEY (organization_id, project, transcript_id, subpath, position)
);

CREATE UNIQUE INDEX agent_transcript_entries_once ON agent_transcript_entries (organization_id, project, transcript_id, subpath, uuid);

CREATE TABLE agent_transcripts (
    organization_id UUID NOT NULL,
    project TEXT NOT NULL,
    transcript_id TEXT NOT NULL,
    subpath TEXT NOT NULL,
    last_position BIGINT DEFAULT 0 NOT NULL,
    size_bytes BIGINT DEFAULT 0 NOT NULL,
    written_at_ms BIGINT DEFAULT 0 NOT NULL,
    summary JSONB,
    CONSTRAINT agent_transcripts_pkey PRIMARY KEY (organization_id, project, transcript_id, subpath)
);

CREATE TABLE agents (
    organization_id UUID NOT NULL,
    agent_id TEXT NOT NULL,
    uid UUID NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    model TEXT NOT NULL,
    spec JSONB NOT NULL,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT agents_pkey PRIMARY KEY (organization_id, agent_id)
);

CREATE INDEX agents_by_creation ON agents (organization_id, created_at, agent_id);

CREATE TABLE archives (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    user_id UUID NOT NULL,
    format TEXT NOT NULL,
    state TEXT NOT NULL,
    request_id UUID,
    reserved_bytes BIGINT DEFAULT '0' NOT NULL,
    size_bytes BIGINT DEFAULT '0' NOT NULL,
    content_bytes BIGINT DEFAULT '0' NOT NULL,
    file_count BIGINT DEFAULT '0' NOT NULL,
    sha256 TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    leased_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT archives_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX archives_created_at_idx ON archives (created_at) WHERE state = 'READY';

CREATE INDEX archives_created_idx ON archives (organization_id, created_at, id);

CREATE INDEX archives_leased_until_idx ON archives (leased_until) WHERE state <> 'READY';

CREATE UNIQUE INDEX archives_making_key ON archives (organization_id, session_id) WHERE state = 'MAKING';

CREATE UNIQUE INDEX archives_session_key ON archives (organization_id, session_id) WHERE state = 'READY';

CREATE INDEX archives_user_id_idx ON archives (organization_id, user_id, created_at, id);

CREATE TABLE audit_checkpoints (
    organization_id UUID NOT NULL,
    size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    note TEXT NOT NULL,
    signed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    cosigned_size BIGINT DEFAULT 0 NOT NULL,
    cosigned_note TEXT DEFAULT '' NOT NULL,
    published_size BIGINT DEFAULT 0 NOT NULL,
    publish_after TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (organization_id)
);

CREATE TABLE audit_events (
    organization_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    id UUID NOT NULL,
    category TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor TEXT NOT NULL,
    on_behalf_of TEXT NOT NULL,
    api_key TEXT NOT NULL,
    method TEXT NOT NULL,
    resource TEXT NOT NULL,
    reason TEXT NOT NULL,
    request_id TEXT NOT NULL,
    peer TEXT NOT NULL,
    details JSON NOT NULL,
    salt BYTEA DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) NOT NULL,
    CONSTRAINT audit_events_pkey PRIMARY KEY (organization_id, created_at, id)
)
 PARTITION BY RANGE (created_at);

CREATE TABLE audit_heads (
    organization_id UUID NOT NULL,
    last_sequence BIGINT NOT NULL,
    frontier BYTEA NOT NULL,
    CONSTRAINT audit_heads_pkey PRIMARY KEY (organization_id)
);

CREATE TABLE audit_keys (
    public_key BYTEA NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    retired_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT audit_keys_pkey PRIMARY KEY (public_key)
);

CREATE UNIQUE INDEX audit_keys_active_key ON audit_keys (is_active) WHERE is_active;

CREATE TABLE audit_positions (
    organization_id UUID NOT NULL,
    sequence BIGINT NOT NULL,
    event_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    commitment BYTEA NOT NULL,
    CONSTRAINT audit_positions_pkey PRIMARY KEY (organization_id, sequence)
);

CREATE UNIQUE INDEX audit_positions_event_id_idx ON audit_positions (organization_id, event_id);

CREATE TABLE audit_queue (
    organization_id UUID NOT NULL,
    ordinal BIGINT GENERATED ALWAYS AS IDENTITY,
    event_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT audit_queue_pkey PRIMARY KEY (organization_id, ordinal)
);

CREATE INDEX audit_queue_ordinal_idx ON audit_queue (ordinal);

CREATE TABLE audit_tiles (
    organization_id UUID NOT NULL,
    level INTEGER NOT NULL,
    number BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    CONSTRAINT audit_tiles_pkey PRIMARY KEY (organization_id, level, number)
);

CREATE TABLE audit_witnesses (
    organization_id UUID NOT NULL,
    witness TEXT NOT NULL,
    size BIGINT NOT NULL,
    CONSTRAINT audit_witnesses_pkey PRIMARY KEY (organization_id, witness)
);

CREATE TABLE background_errors (
    id UUID NOT NULL,
    service_id TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    error TEXT NOT NULL,
    CONSTRAINT background_errors_pkey PRIMARY KEY (id)
);

CREATE INDEX background_errors_at_idx ON background_errors (at);

CREATE INDEX background_errors_service_idx ON background_errors (service_id, at);

CREATE TABLE background_figures (
    service_id TEXT NOT NULL,
    server_id UUID NOT NULL,
    state TEXT NOT NULL,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    retried BIGINT NOT NULL,
    restarted BIGINT NOT NULL,
    busy_seconds FLOAT NOT NULL,
    failures_in_a_row INTEGER NOT NULL,
    last_run_at TIMESTAMP WITH TIME ZONE,
    last_success_at TIMESTAMP WITH TIME ZONE,
    last_error TEXT NOT NULL,
    last_error_at TIMESTAMP WITH TIME ZONE,
    recent_seconds FLOAT NOT NULL,
    memory_growth_bytes BIGINT NOT NULL,
    handle_growth INTEGER NOT NULL,
    CONSTRAINT background_figures_pkey PRIMARY KEY (service_id, server_id)
);

CREATE TABLE background_leases (
    service_id TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    token UUID,
    expires_at TIMESTAMP WITH TIME ZONE,
    failures_in_a_row INTEGER DEFAULT 0 NOT NULL,
    told TEXT[] DEFAULT '{}' NOT NULL,
    CONSTRAINT background_leases_pkey PRIMARY KEY (service_id)
);

CREATE TABLE background_services (
    service_id TEXT NOT NULL,
    enabled BOOLEAN DEFAULT true NOT NULL,
    paused BOOLEAN DEFAULT false NOT NULL,
    pause_reason TEXT DEFAULT '' NOT NULL,
    interval INTERVAL,
    max_failures INTEGER,
    retry_delay INTERVAL,
    alert_errors_per_hour INTEGER,
    alert_run_time INTERVAL,
    alert_memory_growth_bytes BIGINT,
    alert_handle_growth INTEGER,
    own JSON DEFAULT '{}' NOT NULL,
    etag UUID NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT background_services_pkey PRIMARY KEY (service_id)
);

CREATE TABLE crawl_pages (
    organization_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    url TEXT NOT NULL,
    number BIGINT GENERATED ALWAYS AS IDENTITY,
    host TEXT NOT NULL,
    depth INTEGER NOT NULL,
    via TEXT[] DEFAULT '{}' NOT NULL,
    state TEXT DEFAULT 'PENDING' NOT NULL,
    reason TEXT,
    error TEXT DEFAULT '' NOT NULL,
    taken INTEGER DEFAULT 0 NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    status_code INTEGER,
    size_bytes BIGINT DEFAULT 0 NOT NULL,
    content_type TEXT DEFAULT '' NOT NULL,
    title TEXT DEFAULT '' NOT NULL,
    markdown TEXT DEFAULT '' NOT NULL,
    canonical_url TEXT DEFAULT '' NOT NULL,
    redirect_to TEXT DEFAULT '' NOT NULL,
    duplicate_of TEXT DEFAULT '' NOT NULL,
    content_hash BYTEA,
    found_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    fetched_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT crawl_pages_pkey PRIMARY KEY (organization_id, execution_id, url)
);

CREATE INDEX crawl_pages_hash_idx ON crawl_pages (organization_id, execution_id, content_hash) WHERE state = 'FETCHED';

CREATE UNIQUE INDEX crawl_pages_organization_id_execution_id_number_idx ON crawl_pages (organization_id, execution_id, number);

CREATE INDEX crawl_pages_pending_idx ON crawl_pages (organization_id, execution_id, depth, number) WHERE state = 'PENDING';

CREATE TABLE crawl_runs (
    organization_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    fence INTEGER NOT NULL,
    seeded BOOLEAN DEFAULT false NOT NULL,
    urls INTEGER DEFAULT 0 NOT NULL,
    cookies JSON DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT crawl_runs_pkey PRIMARY KEY (organization_id, execution_id)
);

CREATE TABLE credential_key_rotation (
    id SMALLINT NOT NULL,
    state TEXT NOT NULL,
    target_key_id TEXT NOT NULL,
    total BIGINT NOT NULL,
    done BIGINT DEFAULT '0' NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT credential_key_rotation_pkey PRIMARY KEY (id)
);

CREATE TABLE credential_keys (
    key_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    is_primary BOOLEAN NOT NULL,
    canary BYTEA NOT NULL,
    material BYTEA NOT NULL,
    wraps BIGINT DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT credential_keys_pkey PRIMARY KEY (key_id)
);

CREATE UNIQUE INDEX credential_keys_primary_key ON credential_keys (is_primary) WHERE is_primary;

CREATE TABLE credential_retired_keys (
    key_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    wraps BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    retired_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT credential_retired_keys_pkey PRIMARY KEY (key_id)
);

CREATE TABLE credentials (
    organization_id UUID NOT NULL,
    credential_id TEXT NOT NULL,
    uid UUID NOT NULL,
    owner_id UUID NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    category TEXT NOT NULL,
    tags JSONB NOT NULL,
    encrypted BOOLEAN NOT NULL,
    environment_variable TEXT NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    last_version BIGINT DEFAULT '0' NOT NULL,
    current_version BIGINT,
    previous_version BIGINT,
    pending_version BIGINT,
    announced_for TIMESTAMP WITH TIME ZONE,
    expired_for TIMESTAMP WITH TIME ZONE,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    purge_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT credentials_pkey PRIMARY KEY (organization_id, credential_id)
);

CREATE INDEX credentials_created_at_idx ON credentials (organization_id, created_at, credential_id);

CREATE INDEX credentials_expires_at_idx ON credentials (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX credentials_purge_at_idx ON credentials (purge_at) WHERE purge_at IS NOT NULL;

CREATE UNIQUE INDEX credentials_uid_key ON credentials (organization_id, uid);

CREATE TABLE documents (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    source TEXT NOT NULL,
    title TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    encoder TEXT NOT NULL,
    pieces INTEGER DEFAULT 0 NOT NULL,
    ready BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT documents_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX documents_encoder_idx ON documents (encoder) WHERE ready;

CREATE INDEX documents_organization_id_user_id_source_idx ON documents (organization_id, user_id, source);

CREATE INDEX documents_unfinished_idx ON documents (updated_at) WHERE NOT ready;

CREATE TABLE events (
    organization_id UUID NOT NULL,
    stream_id UUID NOT NULL,
    sequence BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    kind TEXT NOT NULL,
    body JSON NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (organization_id, stream_id, sequence, created_at)
)
 PARTITION BY RANGE (created_at);

CREATE TABLE executions (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    task_id TEXT,
    task_uid UUID,
    kind TEXT NOT NULL,
    trigger TEXT NOT NULL,
    scheduled_for TIMESTAMP WITH TIME ZONE,
    payload JSON NOT NULL,
    secrets JSON DEFAULT '{}' NOT NULL,
    variables JSON DEFAULT '{}' NOT NULL,
    labels JSONB DEFAULT '{}' NOT NULL,
    report_formats TEXT[] DEFAULT '{}' NOT NULL,
    blocked BOOLEAN DEFAULT false NOT NULL,
    template BOOLEAN DEFAULT false NOT NULL,
    conversation_id UUID DEFAULT gen_random_uuid() NOT NULL,
    session_id UUID,
    keep_session BOOLEAN DEFAULT false NOT NULL,
    turn_id UUID,
    checkpoint JSON,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT executions_pkey PRIMARY KEY (organization_id, id)
);

CREATE UNIQUE INDEX executions_due_key ON executions (organization_id, task_uid, scheduled_for) WHERE scheduled_for IS NOT NULL;

CREATE INDEX executions_organization_id_created_at_id_idx ON executions (organization_id, created_at, id);

CREATE INDEX executions_organization_id_task_id_created_at_id_idx ON executions (organization_id, task_id, created_at, id) WHERE task_id IS NOT NULL;

CREATE INDEX executions_organization_id_task_id_idx ON executions (organization_id, task_id) WHERE blocked;

CREATE INDEX executions_organization_id_task_uid_created_at_id_idx ON executions (organization_id, task_uid, created_at, id) WHERE task_uid IS NOT NULL;

CREATE INDEX executions_organization_id_user_id_created_at_id_idx ON executions (organization_id, user_id, created_at, id);

CREATE TABLE file_batches (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    decided BOOLEAN DEFAULT false NOT NULL,
    failed INTEGER DEFAULT '0' NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    error TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    leased_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT file_batches_pkey PRIMARY KEY (organization_id, session_id, id)
);

CREATE INDEX file_batches_created_at_idx ON file_batches (created_at);

CREATE INDEX file_batches_leased_until_idx ON file_batches (leased_until);

CREATE TABLE file_changes (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    id UUID NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    target TEXT DEFAULT '' NOT NULL,
    upload_id UUID,
    etag TEXT DEFAULT '' NOT NULL,
    user_id UUID NOT NULL,
    decided BOOLEAN DEFAULT false NOT NULL,
    batch_id UUID,
    leased_until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT file_changes_pkey PRIMARY KEY (organization_id, session_id, id)
);

CREATE INDEX file_changes_batch_idx ON file_changes (organization_id, batch_id, id) WHERE batch_id IS NOT NULL;

CREATE INDEX file_changes_leased_until_idx ON file_changes (leased_until) WHERE batch_id IS NULL;

CREATE TABLE forgotten_executions (
    organization_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    session_id UUID,
    claimed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT forgotten_executions_pkey PRIMARY KEY (organization_id, execution_id)
);

CREATE TABLE installation_secrets (
    purpose TEXT NOT NULL,
    secret BYTEA NOT NULL,
    CONSTRAINT installation_secrets_pkey PRIMARY KEY (purpose)
);

CREATE TABLE mcp_servers (
    organization_id UUID NOT NULL,
    owner_id UUID NOT NULL,
    server_id TEXT NOT NULL,
    uid UUID NOT NULL,
    level TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    transport JSONB NOT NULL,
    secrets JSONB NOT NULL,
    disabled BOOLEAN NOT NULL,
    allowed_tools TEXT[] NOT NULL,
    idempotent_tools TEXT[] NOT NULL,
    trust_annotations BOOLEAN NOT NULL,
    call_timeout INTERVAL NOT NULL,
    connect_timeout INTERVAL NOT NULL,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT mcp_servers_pkey PRIMARY KEY (organization_id, owner_id, server_id)
);

CREATE TABLE mcp_sessions (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    server_id TEXT NOT NULL,
    level TEXT NOT NULL,
    server_uid UUID,
    state TEXT DEFAULT 'OPEN' NOT NULL,
    state_reason TEXT DEFAULT '' NOT NULL,
    idle_timeout INTERVAL NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT mcp_sessions_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX mcp_sessions_closed_idx ON mcp_sessions (id) WHERE state = 'CLOSED';

CREATE INDEX mcp_sessions_idle_idx ON mcp_sessions (last_used_at) WHERE state = 'OPEN';

CREATE INDEX mcp_sessions_organization_id_server_uid_idx ON mcp_sessions (organization_id, server_uid) WHERE state = 'OPEN';

CREATE INDEX mcp_sessions_organization_id_user_id_created_at_idx ON mcp_sessions (organization_id, user_id, created_at);

CREATE TABLE organizations (
    organization_id UUID NOT NULL,
    display_name TEXT NOT NULL,
    tool_policies JSONB DEFAULT '[]'::jsonb NOT NULL,
    webhook_url TEXT,
    webhook_secret BYTEA,
    revision BIGINT DEFAULT '1' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT organizations_pkey PRIMARY KEY (organization_id)
);

CREATE TABLE permission_requests (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    turn_id UUID NOT NULL,
    user_id UUID NOT NULL,
    step INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    arguments JSON NOT NULL,
    limit_name TEXT,
    limit_value BIGINT,
    used_value BIGINT,
    state TEXT NOT NULL,
    decision TEXT,
    message TEXT DEFAULT '' NOT NULL,
    edited_arguments JSON,
    resolved_by UUID,
    on_timeout TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT permission_requests_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX permission_requests_due_idx ON permission_requests (expires_at) WHERE state = 'PENDING';

CREATE INDEX permission_requests_organization_id_session_id_created_at_idx ON permission_requests (organization_id, session_id, created_at);

CREATE INDEX permission_requests_organization_id_turn_id_idx ON permission_requests (organization_id, turn_id);

CREATE TABLE prompt_exposures (
    organization_id UUID NOT NULL,
    experiment_id UUID NOT NULL,
    unit TEXT NOT NULL,
    variant TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT prompt_exposures_pkey PRIMARY KEY (organization_id, experiment_id, unit)
);

CREATE TABLE prompt_figures (
    organization_id UUID NOT NULL,
    prompt_uid UUID NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    version INTEGER NOT NULL,
    label TEXT NOT NULL,
    renders BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    latencies BIGINT[] NOT NULL,
    model_calls BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    CONSTRAINT prompt_figures_pkey PRIMARY KEY (organization_id, prompt_uid, hour, version, label)
);

CREATE INDEX prompt_figures_hour_idx ON prompt_figures (hour);

CREATE TABLE prompt_outcomes (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    prompt_uid UUID NOT NULL,
    version INTEGER NOT NULL,
    label TEXT NOT NULL,
    metric TEXT NOT NULL,
    outcome FLOAT(53) NOT NULL,
    experiment_id UUID,
    variant TEXT NOT NULL,
    unit TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT prompt_outcomes_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX prompt_outcomes_created_at_idx ON prompt_outcomes (created_at);

CREATE UNIQUE INDEX prompt_outcomes_once ON prompt_outcomes (organization_id, experiment_id, unit, metric) WHERE experiment_id IS NOT NULL;

CREATE INDEX prompt_outcomes_organization_id_prompt_uid_created_at_idx ON prompt_outcomes (organization_id, prompt_uid, created_at);

CREATE TABLE prompts (
    organization_id UUID NOT NULL,
    prompt_id TEXT NOT NULL,
    uid UUID NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    tags JSONB NOT NULL,
    protected_labels TEXT[] NOT NULL,
    default_label TEXT NOT NULL,
    attributes JSON NOT NULL,
    rules JSON NOT NULL,
    latest_version INTEGER NOT NULL,
    labels JSONB DEFAULT '{}' NOT NULL,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT prompts_pkey PRIMARY KEY (organization_id, prompt_id)
);

CREATE INDEX prompts_by_creation ON prompts (organization_id, created_at, prompt_id);

CREATE TABLE quota_calls (
    organization_id UUID NOT NULL,
    subject_id UUID NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    taken BIGINT NOT NULL,
    last_block BIGINT NOT NULL,
    CONSTRAINT quota_calls_pkey PRIMARY KEY (organization_id, subject_id)
);

CREATE TABLE quota_usage (
    organization_id UUID NOT NULL,
    subject_id UUID NOT NULL,
    shard SMALLINT NOT NULL,
    sessions BIGINT DEFAULT '0' NOT NULL,
    day DATE NOT NULL,
    tokens BIGINT DEFAULT '0' NOT NULL,
    cost_micros BIGINT DEFAULT '0' NOT NULL,
    tool_calls BIGINT DEFAULT '0' NOT NULL,
    running_time INTERVAL DEFAULT '0' NOT NULL,
    storage_reserved BIGINT DEFAULT '0' NOT NULL,
    storage_used BIGINT DEFAULT '0' NOT NULL,
    CONSTRAINT quota_usage_pkey PRIMARY KEY (organization_id, subject_id, shard)
);

CREATE TABLE quotas (
    organization_id UUID NOT NULL,
    subject_id UUID NOT NULL,
    max_concurrent_sessions BIGINT,
    max_calls_per_hour BIGINT,
    max_cost_micros_per_day BIGINT,
    max_storage_bytes BIGINT,
    max_users BIGINT,
    max_tokens_per_day BIGINT,
    max_tool_calls_per_day BIGINT,
    max_running_time_per_day INTERVAL,
    revision BIGINT DEFAULT '1' NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT quotas_pkey PRIMARY KEY (organization_id, subject_id)
);

CREATE TABLE reports (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    title TEXT NOT NULL,
    format TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT reports_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX reports_created_at_idx ON reports (created_at);

CREATE UNIQUE INDEX reports_execution_format_key ON reports (organization_id, execution_id, format);

CREATE INDEX reports_execution_idx ON reports (organization_id, ('executions/' || execution_id::text));

CREATE INDEX reports_organization_id_created_at_id_idx ON reports (organization_id, created_at, id);

CREATE INDEX reports_organization_id_user_id_created_at_id_idx ON reports (organization_id, user_id, created_at, id);

CREATE TABLE request_ids (
    organization_id UUID NOT NULL,
    user_id UUID NOT NULL,
    request_id UUID NOT NULL,
    method TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer JSON,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT request_ids_pkey PRIMARY KEY (organization_id, user_id, request_id)
);

CREATE INDEX request_ids_created_at_idx ON request_ids (created_at);

CREATE TABLE servers (
    server_id UUID NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    encoder TEXT DEFAULT '' NOT NULL,
    encryption_keys TEXT[] DEFAULT '{}' NOT NULL,
    resources JSON NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT servers_pkey PRIMARY KEY (server_id)
);

CREATE TABLE sessions (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    display_name TEXT NOT NULL,
    state TEXT NOT NULL,
    state_reason TEXT DEFAULT '' NOT NULL,
    agent_id TEXT DEFAULT '' NOT NULL,
    spec JSONB NOT NULL,
    tool_policies JSONB NOT NULL,
    limits JSONB NOT NULL,
    labels JSONB NOT NULL,
    idle_timeout INTERVAL,
    parent_session_id UUID,
    parent_message INTEGER,
    granted_tools TEXT[] DEFAULT '{}' NOT NULL,
    portions JSONB DEFAULT '{}' NOT NULL,
    message_count INTEGER DEFAULT 0 NOT NULL,
    last_message INTEGER DEFAULT 0 NOT NULL,
    embedded_message INTEGER DEFAULT 0 NOT NULL,
    embedded_by TEXT DEFAULT '' NOT NULL,
    current_turn_id UUID,
    version INTEGER DEFAULT 1 NOT NULL,
    input_tokens BIGINT DEFAULT 0 NOT NULL,
    output_tokens BIGINT DEFAULT 0 NOT NULL,
    cached_input_tokens BIGINT DEFAULT 0 NOT NULL,
    cost_micros BIGINT DEFAULT 0 NOT NULL,
    model_calls BIGINT DEFAULT 0 NOT NULL,
    tool_calls BIGINT DEFAULT 0 NOT NULL,
    cost_estimated BOOLEAN DEFAULT false NOT NULL,
    running_time INTERVAL DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (organization_id, id)
);

CREATE INDEX sessions_idle_idx ON sessions (updated_at) WHERE state = 'ACTIVE';

CREATE INDEX sessions_organization_id_agent_id_idx ON sessions (organization_id, agent_id) WHERE agent_id != '';

CREATE INDEX sessions_organization_id_created_at_id_idx ON sessions (organization_id, created_at, id);

CREATE INDEX sessions_organization_id_user_id_created_at_id_idx ON sessions (organization_id, user_id, created_at, id);

CREATE INDEX sessions_unembedded_idx ON sessions (organization_id, id) WHERE last_message > embedded_message;

CREATE TABLE streams (
    organization_id UUID NOT NULL,
    stream_id UUID NOT NULL,
    last_sequence BIGINT DEFAULT '0' NOT NULL,
    fence UUID,
    last_flush UUID,
    flush_sequence BIGINT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT streams_pkey PRIMARY KEY (organization_id, stream_id)
);

CREATE TABLE sync_checks (
    service_id TEXT NOT NULL,
    place TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    found JSONB,
    asked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT sync_checks_pkey PRIMARY KEY (service_id, place, asked_by)
);

CREATE TABLE sync_cursors (
    service_id TEXT NOT NULL,
    place TEXT NOT NULL,
    about TEXT[] NOT NULL,
    source TEXT NOT NULL,
    transaction BIGINT NOT NULL,
    number BIGINT NOT NULL,
    filling_organization_id UUID,
    filling_task_id TEXT,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT sync_cursors_pkey PRIMARY KEY (service_id, place)
);

CREATE TABLE sync_forgotten (
    about TEXT NOT NULL,
    transaction BIGINT NOT NULL,
    number BIGINT NOT NULL,
    CONSTRAINT sync_forgotten_pkey PRIMARY KEY (about)
);

CREATE TABLE sync_generations (
    service_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    asked_by TEXT[] NOT NULL,
    CONSTRAINT sync_generations_pkey PRIMARY KEY (service_id)
);

CREATE TABLE task_changes (
    organization_id UUID NOT NULL,
    number BIGINT GENERATED ALWAYS AS IDENTITY,
    transaction BIGINT DEFAULT (pg_current_xact_id()::text::bigint) NOT NULL,
    task_id TEXT NOT NULL,
    about TEXT NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT task_changes_pkey PRIMARY KEY (organization_id, number)
);

CREATE INDEX task_changes_about_transaction_number_idx ON task_changes (about, transaction, number);

CREATE TABLE task_dependencies (
    organization_id UUID NOT NULL,
    task_id TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    on_failure TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT task_dependencies_pkey PRIMARY KEY (organization_id, task_id, depends_on)
);

CREATE INDEX task_dependencies_organization_id_depends_on_idx ON task_dependencies (organization_id, depends_on);

CREATE TABLE task_levels (
    organization_id UUID NOT NULL,
    task_id TEXT NOT NULL,
    level SMALLINT NOT NULL,
    CONSTRAINT task_levels_pkey PRIMARY KEY (organization_id, task_id)
);

CREATE TABLE tasks (
    organization_id UUID NOT NULL,
    task_id TEXT NOT NULL,
    uid UUID NOT NULL,
    user_id UUID NOT NULL,
    kind TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    secrets JSON DEFAULT '{}' NOT NULL,
    payload JSONB NOT NULL,
    variables JSONB NOT NULL,
    schedule JSONB,
    options JSONB NOT NULL,
    dependency_mode TEXT NOT NULL,
    labels JSONB NOT NULL,
    state TEXT DEFAULT 'ACTIVE' NOT NULL,
    state_reason TEXT DEFAULT '' NOT NULL,
    settled_until TIMESTAMP WITH TIME ZONE,
    next_fire_at TIMESTAMP WITH TIME ZONE,
    last_fire_at TIMESTAMP WITH TIME ZONE,
    fired BIGINT DEFAULT '0' NOT NULL,
    skipped JSONB DEFAULT '{}' NOT NULL,
    etag TEXT NOT NULL,
    text_etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    words TSVECTOR GENERATED ALWAYS AS (setweight(to_tsvector('simple', task_id || ' ' || replace(task_id, '-', ' ') || ' ' || display_name), 'A') || setweight(to_tsvector('simple', description), 'B') || setweight(jsonb_to_tsvector('simple', labels, '["string"]'), 'C') || setweight(jsonb_to_tsvector('simple', payload, '["string"]'), 'D')) STORED,
    CONSTRAINT tasks_pkey PRIMARY KEY (organization_id, task_id)
);

CREATE INDEX tasks_due_idx ON tasks (next_fire_at) WHERE next_fire_at IS NOT NULL AND state = 'ACTIVE';

CREATE INDEX tasks_words_idx ON tasks USING gin (words);

CREATE TABLE tool_calls (
    organization_id UUID NOT NULL,
    turn_id UUID NOT NULL,
    step INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    session_id UUID NOT NULL,
    tool TEXT NOT NULL,
    arguments JSON NOT NULL,
    state TEXT NOT NULL,
    content TEXT DEFAULT '' NOT NULL,
    is_error BOOLEAN DEFAULT false NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT tool_calls_pkey PRIMARY KEY (organization_id, turn_id, step, call_id)
);

CREATE TABLE uploads (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    path TEXT NOT NULL,
    size_bytes BIGINT,
    sha256 TEXT NOT NULL,
    etag TEXT NOT NULL,
    state TEXT NOT NULL,
    resumable BOOLEAN NOT NULL,
    reserved_bytes BIGINT DEFAULT '0' NOT NULL,
    writer UUID NOT NULL,
    file JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uploads_pkey PRIMARY KEY (organization_id, session_id, id)
);

CREATE INDEX uploads_expires_at_idx ON uploads (expires_at);

CREATE TABLE work_items (
    organization_id UUID NOT NULL,
    item_id UUID NOT NULL,
    user_id UUID NOT NULL,
    kind TEXT NOT NULL,
    subject_id UUID NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    priority SMALLINT NOT NULL,
    paused BOOLEAN DEFAULT false NOT NULL,
    payload JSON NOT NULL,
    concurrency_key TEXT,
    max_running INTEGER DEFAULT '1' NOT NULL,
    deferred TEXT,
    idempotency_key TEXT,
    idempotency_expires_at TIMESTAMP WITH TIME ZONE,
    rate_key TEXT,
    rate_spacing INTERVAL,
    rate_slot TIMESTAMP WITH TIME ZONE,
    retry JSON,
    attempt INTEGER DEFAULT '0' NOT NULL,
    run_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    start_deadline TIMESTAMP WITH TIME ZONE,
    close_deadline TIMESTAMP WITH TIME ZONE,
    close_timeout INTERVAL,
    attempt_timeout INTERVAL,
    heartbeat_timeout INTERVAL,
    lease_token UUID,
    lease_expires_at TIMESTAMP WITH TIME ZONE,
    attempt_deadline TIMESTAMP WITH TIME ZONE,
    heartbeat_deadline TIMESTAMP WITH TIME ZONE,
    worker TEXT,
    cancel_requested BOOLEAN DEFAULT false NOT NULL,
    resume_requested BOOLEAN DEFAULT false NOT NULL,
    follow_up BOOLEAN DEFAULT false NOT NULL,
    followed_up BOOLEAN DEFAULT false NOT NULL,
    progress JSON,
    result JSON,
    errors JSONB DEFAULT '[]' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT work_items_pkey PRIMARY KEY (organization_id, item_id)
);

CREATE INDEX work_items_concurrency_idx ON work_items (organization_id, concurrency_key, state) WHERE concurrency_key IS NOT NULL AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED');

CREATE INDEX work_items_dead_idx ON work_items (organization_id, finished_at, item_id) WHERE state = 'DEAD';

CREATE INDEX work_items_deadline_idx ON work_items (least(start_deadline, close_deadline)) WHERE state IN ('WAITING', 'QUEUED', 'SUSPENDED') AND (start_deadline IS NOT NULL OR close_deadline IS NOT NULL);

CREATE INDEX work_items_deferred_idx ON work_items (run_at) WHERE state = 'WAITING' AND deferred IS NOT NULL AND NOT paused;

CREATE INDEX work_items_ended_idx ON work_items (organization_id, finished_at) WHERE follow_up AND state IN ('SUCCEEDED', 'CANCELLED');

CREATE INDEX work_items_follow_up_idx ON work_items (kind, finished_at) WHERE follow_up AND NOT followed_up AND state IN ('SUCCEEDED', 'CANCELLED', 'DEAD');

CREATE UNIQUE INDEX work_items_idempotency_key ON work_items (organization_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX work_items_lane_idx ON work_items (organization_id, user_id, priority, state, run_at) WHERE state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED');

CREATE INDEX work_items_limit_idx ON work_items (organization_id, concurrency_key, max_running) WHERE state = 'WAITING' AND deferred IS NULL AND NOT paused;

CREATE INDEX work_items_running_idx ON work_items (item_id) WHERE state = 'RUNNING';

CREATE INDEX work_items_subject_idx ON work_items (organization_id, subject_id) WHERE follow_up AND state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED');

CREATE INDEX work_items_waiting_idx ON work_items (organization_id, concurrency_key, priority, run_at, item_id) WHERE state = 'WAITING' AND deferred IS NULL AND NOT paused;

CREATE TABLE work_keys (
    organization_id UUID NOT NULL,
    concurrency_key TEXT NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT work_keys_pkey PRIMARY KEY (organization_id, concurrency_key)
);

CREATE TABLE work_lanes (
    organization_id UUID NOT NULL,
    user_id UUID NOT NULL,
    priority SMALLINT NOT NULL,
    served_at TIMESTAMP WITH TIME ZONE,
    used_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT work_lanes_pkey PRIMARY KEY (organization_id, user_id, priority)
);

CREATE TABLE work_rates (
    organization_id UUID NOT NULL,
    rate_key TEXT NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT work_rates_pkey PRIMARY KEY (organization_id, rate_key)
);

CREATE TABLE workspace_files (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    path TEXT NOT NULL,
    etag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    CONSTRAINT workspace_files_pkey PRIMARY KEY (organization_id, session_id, path)
);

CREATE TABLE workspaces (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    user_id UUID NOT NULL,
    used_bytes BIGINT DEFAULT '0' NOT NULL,
    file_count BIGINT DEFAULT '0' NOT NULL,
    revision BIGINT DEFAULT '1' NOT NULL,
    measured_at TIMESTAMP WITH TIME ZONE,
    measure_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT workspaces_pkey PRIMARY KEY (organization_id, session_id)
);

CREATE INDEX workspaces_measure_at_idx ON workspaces (measure_at) WHERE measure_at IS NOT NULL;

CREATE INDEX workspaces_user_id_idx ON workspaces (organization_id, user_id);

CREATE TABLE credential_grants (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    uid UUID NOT NULL,
    principal TEXT NOT NULL,
    purposes TEXT[] NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    creator_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT credential_grants_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT credential_grants_organization_id_uid_fkey FOREIGN KEY(organization_id, uid) REFERENCES credentials (organization_id, uid) ON DELETE CASCADE
);

CREATE INDEX credential_grants_principal_idx ON credential_grants (organization_id, uid, principal);

CREATE TABLE credential_versions (
    organization_id UUID NOT NULL,
    uid UUID NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    format SMALLINT NOT NULL,
    ciphertext BYTEA,
    wrapped_key BYTEA,
    key_id TEXT,
    plain JSON,
    expires_at TIMESTAMP WITH TIME ZONE,
    grace_ends_at TIMESTAMP WITH TIME ZONE,
    trial TEXT DEFAULT '' NOT NULL,
    announced_for TIMESTAMP WITH TIME ZONE,
    expired_for TIMESTAMP WITH TIME ZONE,
    creator_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    destroyed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT credential_versions_pkey PRIMARY KEY (organization_id, uid, version),
    CONSTRAINT credential_versions_organization_id_uid_fkey FOREIGN KEY(organization_id, uid) REFERENCES credentials (organization_id, uid) ON DELETE CASCADE,
    CONSTRAINT credential_versions_key_id_fkey FOREIGN KEY(key_id) REFERENCES credential_keys (key_id)
);

CREATE INDEX credential_versions_expires_at_idx ON credential_versions (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX credential_versions_key_id_idx ON credential_versions (key_id, organization_id, uid, version) WHERE key_id IS NOT NULL;

CREATE TABLE messages (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    number INTEGER NOT NULL,
    turn_id UUID,
    role TEXT NOT NULL,
    parts JSON NOT NULL,
    text TEXT DEFAULT '' NOT NULL,
    search TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', left(text, 200000))) STORED,
    interrupted BOOLEAN DEFAULT false NOT NULL,
    provenance JSON,
    first_delta BIGINT DEFAULT 0 NOT NULL,
    last_delta BIGINT DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT messages_pkey PRIMARY KEY (organization_id, session_id, number),
    CONSTRAINT messages_organization_id_session_id_fkey FOREIGN KEY(organization_id, session_id) REFERENCES sessions (organization_id, id)
);

CREATE INDEX messages_search_idx ON messages USING gin (search);

CREATE INDEX messages_summary_idx ON messages (organization_id, session_id, number) WHERE role = 'SYSTEM';

CREATE TABLE pieces (
    organization_id UUID NOT NULL,
    document_id UUID NOT NULL,
    number INTEGER NOT NULL,
    user_id UUID NOT NULL,
    text TEXT NOT NULL,
    headings TEXT[] NOT NULL,
    start_offset INTEGER NOT NULL,
    encoder TEXT NOT NULL,
    vector VECTOR(384) NOT NULL,
    context TEXT NOT NULL,
    words TSVECTOR GENERATED ALWAYS AS (setweight(to_tsvector('simple', left(context, 5000)), 'A') || setweight(to_tsvector('simple', left(text, 200000)), 'B')) STORED,
    CONSTRAINT pieces_pkey PRIMARY KEY (organization_id, document_id, number),
    CONSTRAINT pieces_organization_id_document_id_fkey FOREIGN KEY(organization_id, document_id) REFERENCES documents (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX pieces_organization_id_user_id_idx ON pieces (organization_id, user_id);

CREATE INDEX pieces_vector_idx ON pieces USING hnsw (vector vector_cosine_ops);

CREATE INDEX pieces_words_idx ON pieces USING gin (words);

CREATE TABLE prompt_customizations (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    prompt_id TEXT NOT NULL,
    user_id UUID NOT NULL,
    agent_id TEXT NOT NULL,
    template TEXT NOT NULL,
    mode TEXT NOT NULL,
    variables JSON NOT NULL,
    disabled BOOLEAN NOT NULL,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT prompt_customizations_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT prompt_customizations_organization_id_prompt_id_fkey FOREIGN KEY(organization_id, prompt_id) REFERENCES prompts (organization_id, prompt_id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX prompt_customizations_key ON prompt_customizations (organization_id, prompt_id, user_id, agent_id);

CREATE TABLE prompt_experiments (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    prompt_id TEXT NOT NULL,
    prompt_uid UUID NOT NULL,
    user_id UUID NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    label TEXT NOT NULL,
    variants JSON NOT NULL,
    traffic INTEGER NOT NULL,
    exclusion_group TEXT NOT NULL,
    metric TEXT NOT NULL,
    alpha FLOAT(53) NOT NULL,
    minimum INTEGER NOT NULL,
    state TEXT NOT NULL,
    slots JSON NOT NULL,
    winner TEXT NOT NULL,
    etag TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT prompt_experiments_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT prompt_experiments_organization_id_prompt_id_fkey FOREIGN KEY(organization_id, prompt_id) REFERENCES prompts (organization_id, prompt_id) ON DELETE CASCADE
);

CREATE INDEX prompt_experiments_by_creation ON prompt_experiments (organization_id, created_at, id);

CREATE INDEX prompt_experiments_running ON prompt_experiments (organization_id, prompt_id) WHERE state = 'RUNNING';

CREATE TABLE prompt_versions (
    organization_id UUID NOT NULL,
    prompt_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    template TEXT NOT NULL,
    variables JSON NOT NULL,
    includes TEXT[] NOT NULL,
    included_ids TEXT[] NOT NULL,
    message TEXT NOT NULL,
    author_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT prompt_versions_pkey PRIMARY KEY (organization_id, prompt_id, version),
    CONSTRAINT prompt_versions_organization_id_prompt_id_fkey FOREIGN KEY(organization_id, prompt_id) REFERENCES prompts (organization_id, prompt_id) ON DELETE CASCADE
);

CREATE INDEX prompt_versions_included ON prompt_versions USING gin (included_ids);

CREATE TABLE report_pieces (
    organization_id UUID NOT NULL,
    report_id UUID NOT NULL,
    number INTEGER NOT NULL,
    data BYTEA NOT NULL,
    CONSTRAINT report_pieces_pkey PRIMARY KEY (organization_id, report_id, number),
    CONSTRAINT report_pieces_organization_id_report_id_fkey FOREIGN KEY(organization_id, report_id) REFERENCES reports (organization_id, id) ON DELETE CASCADE
);

CREATE TABLE sync_skipped (
    organization_id UUID NOT NULL,
    task_id TEXT NOT NULL,
    service_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    method TEXT NOT NULL,
    why TEXT NOT NULL,
    skipped_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT sync_skipped_pkey PRIMARY KEY (organization_id, task_id, service_id),
    CONSTRAINT sync_skipped_organization_id_task_id_fkey FOREIGN KEY(organization_id, task_id) REFERENCES tasks (organization_id, task_id) ON DELETE CASCADE
);

CREATE TABLE task_vectors (
    organization_id UUID NOT NULL,
    task_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    encoder TEXT NOT NULL,
    vector VECTOR(384) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT task_vectors_pkey PRIMARY KEY (organization_id, task_id),
    CONSTRAINT task_vectors_organization_id_task_id_fkey FOREIGN KEY(organization_id, task_id) REFERENCES tasks (organization_id, task_id) ON DELETE CASCADE
);

CREATE TABLE turns (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    session_id UUID NOT NULL,
    user_id UUID NOT NULL,
    state TEXT NOT NULL,
    input_text TEXT NOT NULL,
    user_message INTEGER DEFAULT 0 NOT NULL,
    recovery TEXT NOT NULL,
    ending TEXT DEFAULT '' NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    error_message TEXT DEFAULT '' NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    step INTEGER DEFAULT 1 NOT NULL,
    portions JSONB DEFAULT '{}' NOT NULL,
    prompt_version TEXT DEFAULT '' NOT NULL,
    prompt_variant TEXT DEFAULT '' NOT NULL,
    paid_until TIMESTAMP WITH TIME ZONE,
    paid_on DATE,
    first_sequence BIGINT DEFAULT 0 NOT NULL,
    last_sequence BIGINT DEFAULT 0 NOT NULL,
    input_tokens BIGINT DEFAULT 0 NOT NULL,
    output_tokens BIGINT DEFAULT 0 NOT NULL,
    cached_input_tokens BIGINT DEFAULT 0 NOT NULL,
    cost_micros BIGINT DEFAULT 0 NOT NULL,
    model_calls BIGINT DEFAULT 0 NOT NULL,
    tool_calls BIGINT DEFAULT 0 NOT NULL,
    cost_estimated BOOLEAN DEFAULT false NOT NULL,
    running_time INTERVAL DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    compacted BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT turns_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT turns_organization_id_session_id_fkey FOREIGN KEY(organization_id, session_id) REFERENCES sessions (organization_id, id)
);

CREATE INDEX turns_open_idx ON turns (created_at) WHERE finished_at IS NULL;

CREATE INDEX turns_organization_id_session_id_created_at_id_idx ON turns (organization_id, session_id, created_at, id);

CREATE INDEX turns_to_compact_idx ON turns (finished_at) WHERE finished_at IS NOT NULL AND NOT compacted;

CREATE TABLE users (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    display_name TEXT NOT NULL,
    email TEXT DEFAULT '' NOT NULL,
    role TEXT NOT NULL,
    external_subject TEXT DEFAULT '' NOT NULL,
    disabled_at TIMESTAMP WITH TIME ZONE,
    tool_policies JSONB DEFAULT '[]'::jsonb NOT NULL,
    revision BIGINT DEFAULT '1' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT users_organization_id_fkey FOREIGN KEY(organization_id) REFERENCES organizations (organization_id)
);

CREATE UNIQUE INDEX users_email_key ON users (organization_id, lower(email)) WHERE email <> '';

CREATE UNIQUE INDEX users_external_subject_key ON users (external_subject, organization_id) WHERE external_subject <> '';

CREATE TABLE api_keys (
    organization_id UUID NOT NULL,
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    display_name TEXT DEFAULT '' NOT NULL,
    prefix TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    scopes TEXT[] NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT api_keys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT api_keys_organization_id_user_id_fkey FOREIGN KEY(organization_id, user_id) REFERENCES users (organization_id, id)
);

CREATE UNIQUE INDEX api_keys_prefix_key ON api_keys (prefix);

CREATE INDEX api_keys_user_id_idx ON api_keys (organization_id, user_id);

CREATE TABLE message_vectors (
    organization_id UUID NOT NULL,
    session_id UUID NOT NULL,
    number INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    user_id UUID NOT NULL,
    start_offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    encoder TEXT NOT NULL,
    vector VECTOR(384) NOT NULL,
    CONSTRAINT message_vectors_pkey PRIMARY KEY (organization_id, session_id, number, piece),
    CONSTRAINT message_vectors_organization_id_session_id_number_fkey FOREIGN KEY(organization_id, session_id, number) REFERENCES messages (organization_id, session_id, number) ON DELETE CASCADE
);

CREATE INDEX message_vectors_organization_id_user_id_idx ON message_vectors (organization_id, user_id);

CREATE INDEX message_vectors_vector_idx ON message_vectors USING hnsw (vector vector_cosine_ops);

CREATE FUNCTION note_task_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO task_changes (organization_id, task_id, about) VALUES (
    coalesce(NEW.organization_id, OLD.organization_id), coalesce(NEW.task_id, OLD.task_id), TG_ARGV[0]);
  RETURN NULL;
END
$$;

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE OF kind, display_name, description, payload, labels, state, etag ON tasks FOR EACH ROW EXECUTE FUNCTION note_task_change('task');

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON task_dependencies FOR EACH ROW EXECUTE FUNCTION note_task_change('edge');

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON task_vectors FOR EACH ROW EXECUTE FUNCTION note_task_change('vector');

GRANT USAGE ON SCHEMA public TO stationmaster_app;

GRANT USAGE ON SCHEMA public TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON agent_transcript_entries TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON agent_transcript_entries TO stationmaster_app;

ALTER TABLE agent_transcript_entries ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON agent_transcript_entries TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON agent_transcript_entries TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON agent_transcripts TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON agent_transcripts TO stationmaster_app;

ALTER TABLE agent_transcripts ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON agent_transcripts TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON agent_transcripts TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON agents TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON agents TO stationmaster_app;

ALTER TABLE agents ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON agents TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON agents TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON archives TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON archives TO stationmaster_app;

ALTER TABLE archives ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON archives TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON archives TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_checkpoints TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_checkpoints TO stationmaster_app;

ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_checkpoints TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_checkpoints TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_events TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_events TO stationmaster_app;

ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_events TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_events TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_heads TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_heads TO stationmaster_app;

ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_heads TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_heads TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_keys TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_positions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_positions TO stationmaster_app;

ALTER TABLE audit_positions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_positions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_positions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_queue TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_queue TO stationmaster_app;

ALTER TABLE audit_queue ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_queue TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_queue TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_tiles TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_tiles TO stationmaster_app;

ALTER TABLE audit_tiles ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_tiles TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_tiles TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_witnesses TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON audit_witnesses TO stationmaster_app;

ALTER TABLE audit_witnesses ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON audit_witnesses TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON audit_witnesses TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON background_errors TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON background_figures TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON background_leases TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON background_services TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON crawl_pages TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON crawl_pages TO stationmaster_app;

ALTER TABLE crawl_pages ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON crawl_pages TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON crawl_pages TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON crawl_runs TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON crawl_runs TO stationmaster_app;

ALTER TABLE crawl_runs ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON crawl_runs TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON crawl_runs TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_key_rotation TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_keys TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_retired_keys TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credentials TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credentials TO stationmaster_app;

ALTER TABLE credentials ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON credentials TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON credentials TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON documents TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON documents TO stationmaster_app;

ALTER TABLE documents ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON documents TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON documents TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON events TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON events TO stationmaster_app;

ALTER TABLE events ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON events TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON events TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON executions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON executions TO stationmaster_app;

ALTER TABLE executions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON executions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON executions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON file_batches TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON file_batches TO stationmaster_app;

ALTER TABLE file_batches ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON file_batches TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON file_batches TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON file_changes TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON file_changes TO stationmaster_app;

ALTER TABLE file_changes ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON file_changes TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON file_changes TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON forgotten_executions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON forgotten_executions TO stationmaster_app;

ALTER TABLE forgotten_executions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON forgotten_executions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON forgotten_executions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON installation_secrets TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON mcp_servers TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON mcp_servers TO stationmaster_app;

ALTER TABLE mcp_servers ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON mcp_servers TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON mcp_servers TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON mcp_sessions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON mcp_sessions TO stationmaster_app;

ALTER TABLE mcp_sessions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON mcp_sessions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON mcp_sessions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON organizations TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON organizations TO stationmaster_app;

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON organizations TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON organizations TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON permission_requests TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON permission_requests TO stationmaster_app;

ALTER TABLE permission_requests ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON permission_requests TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON permission_requests TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_exposures TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_exposures TO stationmaster_app;

ALTER TABLE prompt_exposures ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_exposures TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompt_exposures TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_figures TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_figures TO stationmaster_app;

ALTER TABLE prompt_figures ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_figures TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompt_figures TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_outcomes TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_outcomes TO stationmaster_app;

ALTER TABLE prompt_outcomes ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_outcomes TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompt_outcomes TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompts TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompts TO stationmaster_app;

ALTER TABLE prompts ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompts TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompts TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON quota_calls TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON quota_calls TO stationmaster_app;

ALTER TABLE quota_calls ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON quota_calls TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON quota_calls TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON quota_usage TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON quota_usage TO stationmaster_app;

ALTER TABLE quota_usage ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON quota_usage TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON quota_usage TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON quotas TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON quotas TO stationmaster_app;

ALTER TABLE quotas ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON quotas TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON quotas TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON reports TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON reports TO stationmaster_app;

ALTER TABLE reports ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON reports TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON reports TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON request_ids TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON request_ids TO stationmaster_app;

ALTER TABLE request_ids ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON request_ids TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid AND user_id = NULLIF(current_setting('stationmaster.user', true), '')::uuid);

CREATE POLICY system ON request_ids TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON servers TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO stationmaster_app;

ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON sessions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON sessions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON streams TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON streams TO stationmaster_app;

ALTER TABLE streams ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON streams TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON streams TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_checks TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_cursors TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_forgotten TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_generations TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON task_changes TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON task_changes TO stationmaster_app;

ALTER TABLE task_changes ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON task_changes TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON task_changes TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON task_dependencies TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON task_dependencies TO stationmaster_app;

ALTER TABLE task_dependencies ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON task_dependencies TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON task_dependencies TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON task_levels TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON task_levels TO stationmaster_app;

ALTER TABLE task_levels ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON task_levels TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON task_levels TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO stationmaster_app;

ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON tasks TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON tasks TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON tool_calls TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON tool_calls TO stationmaster_app;

ALTER TABLE tool_calls ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON tool_calls TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON tool_calls TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON uploads TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON uploads TO stationmaster_app;

ALTER TABLE uploads ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON uploads TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON uploads TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON work_items TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON work_items TO stationmaster_app;

ALTER TABLE work_items ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON work_items TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON work_items TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON work_keys TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON work_keys TO stationmaster_app;

ALTER TABLE work_keys ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON work_keys TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON work_keys TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON work_lanes TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON work_lanes TO stationmaster_app;

ALTER TABLE work_lanes ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON work_lanes TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON work_lanes TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON work_rates TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON work_rates TO stationmaster_app;

ALTER TABLE work_rates ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON work_rates TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON work_rates TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON workspace_files TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON workspace_files TO stationmaster_app;

ALTER TABLE workspace_files ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON workspace_files TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON workspace_files TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON workspaces TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON workspaces TO stationmaster_app;

ALTER TABLE workspaces ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON workspaces TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON workspaces TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_grants TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_grants TO stationmaster_app;

ALTER TABLE credential_grants ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON credential_grants TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON credential_grants TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_versions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON credential_versions TO stationmaster_app;

ALTER TABLE credential_versions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON credential_versions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON credential_versions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON messages TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON messages TO stationmaster_app;

ALTER TABLE messages ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON messages TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON messages TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON pieces TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON pieces TO stationmaster_app;

ALTER TABLE pieces ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON pieces TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON pieces TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_customizations TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_customizations TO stationmaster_app;

ALTER TABLE prompt_customizations ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_customizations TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid AND user_id = NULLIF(current_setting('stationmaster.user', true), '')::uuid);

CREATE POLICY system ON prompt_customizations TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_experiments TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_experiments TO stationmaster_app;

ALTER TABLE prompt_experiments ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_experiments TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompt_experiments TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_versions TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON prompt_versions TO stationmaster_app;

ALTER TABLE prompt_versions ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON prompt_versions TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON prompt_versions TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON report_pieces TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON report_pieces TO stationmaster_app;

ALTER TABLE report_pieces ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON report_pieces TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON report_pieces TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_skipped TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON sync_skipped TO stationmaster_app;

ALTER TABLE sync_skipped ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON sync_skipped TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON sync_skipped TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON task_vectors TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON task_vectors TO stationmaster_app;

ALTER TABLE task_vectors ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON task_vectors TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON task_vectors TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON turns TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON turns TO stationmaster_app;

ALTER TABLE turns ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON turns TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON turns TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON users TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON users TO stationmaster_app;

ALTER TABLE users ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON users TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON users TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO stationmaster_app;

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON api_keys TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON api_keys TO stationmaster_system USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON message_vectors TO stationmaster_system;

GRANT SELECT, INSERT, UPDATE, DELETE ON message_vectors TO stationmaster_app;

ALTER TABLE message_vectors ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON message_vectors TO stationmaster_app USING (organization_id = NULLIF(current_setting('stationmaster.organization', true), '')::uuid);

CREATE POLICY system ON message_vectors TO stationmaster_system USING (true);

CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;

CREATE TABLE events_default PARTITION OF events DEFAULT;

DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO stationmaster_system';
  END IF;
END $$;

CREATE FUNCTION stationmaster_ensure_partitions(parent text, months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $$
DECLARE
  first timestamp;
  partition text;
  made integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(format('public.%I', parent))) THEN
    RAISE EXCEPTION '% is not partitioned', parent USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('stationmaster_partitions'));
  FOR ahead IN 0 .. months_ahead LOOP
    first := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead);
    partition := parent || to_char(first, '_YYYY_MM');
    CONTINUE WHEN to_regclass(format('public.%I', partition)) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                     first || '+00', first + interval '1 month' || '+00');
      IF current_setting('server_version_num')::int >= 170000 THEN  -- each is vacuumed by its own grants
        EXECUTE format('GRANT MAINTAIN ON public.%I TO stationmaster_system', partition);
      END IF;
      made := made + 1;
    EXCEPTION WHEN check_violation THEN
      -- Rows of the month came before its partition: they, and those to come, stay in the default partition.
      RAISE WARNING 'the rows of % are in the default partition', partition;
    END;
  END LOOP;
  RETURN made;
END $$;

CREATE FUNCTION stationmaster_drop_partitions(parent text, older_than interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $$
DECLARE
  partition text;
  dropped integer := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(format('public.%I', parent))) THEN
    RAISE EXCEPTION '% is not partitioned', parent USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('stationmaster_partitions'));
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(format('public.%I', parent)) AND c.relname ~ ('^' || parent || '_\d{4}_\d{2}$')
      AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' <= (now() - older_than) AT TIME ZONE 'UTC'
  LOOP
    EXECUTE format('DROP TABLE public.%I', partition);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

REVOKE ALL ON FUNCTION stationmaster_ensure_partitions(text, integer) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION stationmaster_ensure_partitions(text, integer) TO stationmaster_system;

REVOKE ALL ON FUNCTION stationmaster_drop_partitions(text, interval) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION stationmaster_drop_partitions(text, interval) TO stationmaster_system;

CREATE FUNCTION stationmaster_drop_leftovers() RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '100ms' AS $$
DECLARE
  leftover text;
  dropped text[] := '{}';
BEGIN
  FOR leftover IN
    SELECT format('public.%I', c.relname) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
    WHERE NOT x.indisvalid AND c.relnamespace = 'public'::regnamespace AND c.relname ~ '_cc(new|old)\d*$'
      AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = x.indrelid AND l.mode = 'ShareUpdateExclusiveLock'
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY 1
  LOOP
    BEGIN
      EXECUTE 'DROP INDEX ' || leftover;
      dropped := dropped || leftover;
    EXCEPTION WHEN lock_not_available OR undefined_object OR undefined_table OR insufficient_privilege THEN
      RAISE WARNING 'index % was not dropped: %', leftover, SQLERRM;
    END;
  END LOOP;
  RETURN dropped;
END $$;

REVOKE ALL ON FUNCTION stationmaster_drop_leftovers() FROM PUBLIC;

GRANT EXECUTE ON FUNCTION stationmaster_drop_leftovers() TO stationmaster_system;

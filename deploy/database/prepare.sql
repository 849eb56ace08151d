-- For an administrator of PostgreSQL, once, before the first start, and again before a restore into another PostgreSQL:
--     STATIONMASTER_DB_PASSWORD=… psql -X -v ON_ERROR_STOP=1 -d postgres -f prepare.sql
-- With this the login of the server owns its database and needs no other right. Nothing is changed that is there.
\set login stationmaster
\set database stationmaster
\getenv password STATIONMASTER_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L', :'login', :'password')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'login') \gexec

-- The roles that the server's connections take; neither can log in, or pass over row-level security.
SELECT format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', name)
FROM unnest(ARRAY['stationmaster_app', 'stationmaster_system']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
GRANT stationmaster_app, stationmaster_system TO :"login";

SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', :'database', :'login')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

\connect :"database"
CREATE EXTENSION IF NOT EXISTS vector;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO :"login";

-- Runs at each start, which applies changed passwords. The name of each file in `passwords` is a service's name, and
-- the name of its role and its database.
\set ON_ERROR_STOP on
\getenv superuser POSTGRES_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name), format('CREATE DATABASE %I OWNER %I', name, name)
FROM pg_ls_dir(:'passwords') AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

ALTER ROLE postgres PASSWORD :'superuser';
SELECT format('ALTER ROLE %I PASSWORD %L', name, pg_read_file(:'passwords' || '/' || name))
FROM pg_ls_dir(:'passwords') AS name \gexec

-- Owners keep their right to connect; all others have it only through PUBLIC.
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', datname)
FROM pg_database WHERE datallowconn \gexec

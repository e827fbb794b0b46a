-- Runs at each start, so that a changed password holds from then on.
\set ON_ERROR_STOP on
\getenv superuser POSTGRES_PASSWORD
\getenv inventory INVENTORY_PASSWORD
\getenv pricing PRICING_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name), format('CREATE DATABASE %I OWNER %I', name, name)
FROM unnest(ARRAY['inventory', 'pricing']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

ALTER ROLE postgres PASSWORD :'superuser';
ALTER ROLE inventory PASSWORD :'inventory';
ALTER ROLE pricing PASSWORD :'pricing';

-- Owners keep their right to connect; anyone else has it only through PUBLIC.
REVOKE CONNECT ON DATABASE postgres, template1, inventory, pricing FROM PUBLIC;

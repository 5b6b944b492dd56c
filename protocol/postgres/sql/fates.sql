-- What became of transactions: 'committed', 'aborted', 'in progress' or unknown, and whether one waits
-- as a prepared transaction (then it stays in progress until somebody finishes it).
SELECT x, coalesce(pg_xact_status(x::xid8), ''),
       EXISTS (SELECT FROM pg_prepared_xact() p WHERE p.transaction = x::xid8::xid)
  FROM unnest($1::text[]) AS x

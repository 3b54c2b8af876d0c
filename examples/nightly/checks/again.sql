-- The second run of the night asked mails again
SELECT max_by(run, started_at) AS run, max_by(asked, started_at) AS asked
FROM runs
HAVING asked > 0

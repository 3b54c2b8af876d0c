-- A label is not in the list of job.toml
SELECT mail_id, label.parsed AS label
FROM mails_enriched
WHERE label.parsed NOT IN ('billing', 'account', 'delivery', 'fault', 'other')

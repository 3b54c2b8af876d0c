-- The open mails that cannot wait.
CREATE MATERIALIZED VIEW urgent_mails AS
SELECT mail_id, customer, received_at, label.parsed AS label, urgency.parsed AS urgency, summary.text AS summary
FROM mails_enriched
WHERE status = 'open' AND urgency.parsed >= 8;

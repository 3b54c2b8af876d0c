-- One row for each day and label.
CREATE MATERIALIZED VIEW mails_by_label AS
SELECT
  date(received_at) AS day,
  label.parsed AS label,
  count(*) AS mails,
  count_if(status = 'open') AS open,
  round(avg(urgency.parsed), 1) AS urgency
FROM mails_enriched
WHERE label.parsed IS NOT NULL
GROUP BY date(received_at), label.parsed;

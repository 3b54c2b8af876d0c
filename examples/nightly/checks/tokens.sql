-- The tokens of tonight's mails differ from those of tonight's reports
WITH tonight AS (
  SELECT max(body_changed_at) AS since FROM mails
),
answers AS (
  SELECT
    sum(
      coalesce(label.usage.total_tokens, 0)
      + coalesce(summary.usage.total_tokens, 0)
      + coalesce(urgency.usage.total_tokens, 0)
      + coalesce(vector.usage.total_tokens, 0)
    ) AS in_table
  FROM mails_enriched JOIN tonight ON body_changed_at = since
),
reports AS (
  SELECT sum(total_tokens) AS in_reports
  FROM runs JOIN tonight ON started_at >= since
)
SELECT in_table, in_reports
FROM answers CROSS JOIN reports
WHERE in_table IS DISTINCT FROM in_reports

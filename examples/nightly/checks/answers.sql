-- A mail has neither an answer nor an error
SELECT mail_id
FROM mails LEFT JOIN mails_enriched AS enriched USING (mail_id)
WHERE
  trim(mails.body) <> ''
  AND (
    coalesce(enriched.label.parsed, enriched.label.error.kind) IS NULL
    OR coalesce(enriched.summary.text, enriched.summary.error.kind) IS NULL
    OR coalesce(string(enriched.urgency.parsed), enriched.urgency.error.kind) IS NULL
    OR (enriched.vector.embedding IS NULL AND enriched.vector.error.kind IS NULL)
  )

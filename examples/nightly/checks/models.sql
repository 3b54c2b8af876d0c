-- The models do not count every mail with a label once
SELECT labelled, counted
FROM
  (SELECT count(label.parsed) AS labelled FROM mails_enriched)
  CROSS JOIN (SELECT sum(mails) AS counted FROM mails_by_label)
WHERE labelled IS DISTINCT FROM counted

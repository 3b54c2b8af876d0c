-- The AI functions in the forms that Databricks' manual shows, as they run on open-source Spark.
-- tests/integration/spark/test_ai_sql.py runs it. Above a statement stands what is to be true of it, besides that it runs:
--   gives  the names and types of its columns          rows   how many there are
--   asks   how many inputs the models get              holds  what is true of each row
--   since  the Spark that it needs, where that is not every one
--   runs   in which tests, where that is not all of them
--   needs  "real" models, where others cannot do it

-- What the statements below are about.
CREATE OR REPLACE TEMP VIEW reviews AS
SELECT * FROM VALUES
  (1, 'I love this phone. It is fast, and it works perfectly.'),
  (2, 'This is the worst phone I ever had. It broke after two days.'),
  (3, CAST(NULL AS STRING)) AS r(id, review);

-- A prompt that is a constant.
-- gives: answer string
-- rows: 1
-- asks: 1
-- holds: length(answer) > 0
SELECT ai_gen('Name a colour.') AS answer;

-- A prompt that is made from a column; a null makes it null.
-- runs: make test-slow
-- gives: id int, answer string
-- rows: 3
-- asks: 2
-- holds: (answer IS NULL) = (id = 3)
SELECT id, ai_gen('Answer this customer in one sentence: ' || review) AS answer FROM reviews;

-- Labels as an array, over a table.
-- gives: id int, label string
-- rows: 3
-- asks: 2
-- holds: label <=> CASE WHEN id < 3 THEN label END AND coalesce(label IN ('praise', 'complaint'), id = 3)
SELECT id, ai_classify(review, array('praise', 'complaint')) AS label FROM reviews;

-- Arguments by name.
-- runs: make test-slow
-- gives: label string
-- rows: 1
-- asks: 1
-- holds: label IN ('urgent', 'not urgent')
-- since: 4.0
SELECT ai_classify(content => 'My password is leaked.', labels => ARRAY('urgent', 'not urgent')) AS label;

-- What the labels mean, with examples and the reason first.
-- runs: make test-slow
-- gives: id int, label string
-- rows: 3
-- asks: 2
-- holds: coalesce(label IN ('praise', 'complaint'), id = 3)
-- since: 4.0
SELECT id, ai_classify(review, array('praise', 'complaint'),
  descriptions => map('complaint', 'the customer wants something changed'),
  examples => array(struct('It broke.' AS content, 'complaint' AS label)), instructions => 'Irony is a complaint.') AS label
FROM reviews;

-- The label with its confidence, which the tokens tell, and the reason.
-- needs: real
-- gives: id int, label string, confidence double, rationale string
-- rows: 1
-- asks: 1
-- holds: label IN ('praise', 'complaint') AND confidence > 0 AND confidence <= 1 AND length(rationale) > 0
SELECT id, answer.parsed AS label, answer.confidence, answer.rationale
FROM (
  SELECT id, llm_classify(review, map('praise', 'a happy customer', 'complaint', 'an unhappy one'), map(), '', array(),
    true, true) AS answer
  FROM reviews WHERE id = 1
);

-- All labels that fit.
-- runs: make test-slow
-- gives: id int, topics array<string>
-- rows: 3
-- asks: 2
-- holds: (topics IS NULL) = (id = 3) AND coalesce(array_except(topics, array('price', 'quality')) = array(), id = 3)
SELECT id, ai_classify_multi(review, array('price', 'quality')) AS topics FROM reviews;

-- In a condition, which asks each row once.
-- runs: make test-slow
-- gives: id int, review string
-- asks: 2
-- holds: id < 3
SELECT id, review FROM reviews WHERE ai_classify(review, array('praise', 'complaint')) = 'praise';

-- A group for each label.
-- runs: make test-slow
-- gives: label string, reviews bigint
-- asks: 2
-- holds: coalesce(label IN ('praise', 'complaint'), TRUE) AND reviews > 0
SELECT ai_classify(review, array('praise', 'complaint')) AS label, count(*) AS reviews FROM reviews GROUP BY label;

-- What is extracted has a field for each label; here it is a map.
-- gives: found map<string,string>
-- rows: 1
-- asks: 1
-- holds: array_sort(map_keys(found)) = array('location', 'organization', 'person')
SELECT ai_extract('John Doe lives in New York and works for Acme Corp.', array('person', 'location', 'organization'))
  AS found;

-- One field of what is extracted, by its name.
-- runs: make test-slow
-- gives: person string
-- rows: 1
-- asks: 1
SELECT ai_extract('John Doe lives in New York.', array('person', 'location')).person AS person;

-- Several fields of what is extracted, which is asked for once.
-- runs: make test-slow
-- gives: email string, time string
-- rows: 1
-- asks: 1
SELECT found.email, found.time
FROM (SELECT ai_extract('Write to jane.doe@example.com by 10am.', array('email', 'time')) AS found);

-- The same as a struct, whose fields `.*` gives.
-- runs: make test-slow
-- gives: email string, time string
-- rows: 1
-- asks: 1
SELECT found.*
FROM (
  SELECT from_json(to_json(ai_extract('Write to jane.doe@example.com by 10am.', array('email', 'time'))),
    'email STRING, time STRING') AS found
);

-- A summary of fifty words at most, where no number is given.
-- runs: make test-slow
-- gives: summary string
-- rows: 1
-- asks: 1
-- holds: length(summary) > 0
SELECT ai_summarize('Apache Spark is a unified analytics engine for large-scale data processing.') AS summary;

-- A summary of so many words.
-- runs: make test-slow
-- gives: summary string
-- rows: 1
-- asks: 1
-- holds: length(summary) > 0
SELECT ai_summarize('Apache Spark is a unified analytics engine for large-scale data processing.', 20) AS summary;

-- A summary of any length, with its argument by name.
-- gives: summary string
-- rows: 1
-- asks: 1
-- holds: length(summary) > 0
-- since: 4.0
SELECT ai_summarize('Apache Spark is an engine for large-scale data processing.', max_words => 0) AS summary;

-- A language by its code.
-- gives: spanish string
-- rows: 1
-- asks: 1
-- holds: length(spanish) > 0
SELECT ai_translate('Hello, how are you?', 'es') AS spanish;

-- Two functions, one on the answer of the other.
-- runs: make test-slow
-- gives: english string
-- rows: 1
-- asks: 2
-- holds: length(english) > 0
SELECT ai_fix_grammar(ai_translate('La vida es un hermoso viaje.', 'en')) AS english;

-- A condition.
-- gives: id int
-- asks: 2
-- holds: id < 3
SELECT id FROM reviews WHERE ai_filter(review, 'the customer is happy');

-- A condition about several columns.
-- runs: make test-slow
-- gives: id int, fits boolean
-- rows: 3
-- asks: 2
-- holds: (fits IS NULL) = (id = 3)
SELECT id, ai_filter(to_json(struct(id, review)), 'Review {id} says that a phone broke: {review}') AS fits FROM reviews;

-- One answer about all rows of a group.
-- gives: happy boolean, answer string
-- rows: 1
-- asks: 1
-- holds: length(answer) > 0
SELECT id = 1 AS happy, ai_agg(collect_list(review), 'What broke, and when?') AS answer FROM reviews
WHERE id > 1 GROUP BY id = 1;

-- A summary of each group, and how many of its rows are not null.
-- runs: make test-slow
-- gives: id int, rows bigint, text string
-- rows: 3
-- asks: 2
-- holds: (text IS NULL) = (id = 3) AND rows = if(id = 3, 0, 1)
SELECT id, answer.rows, answer.text
FROM (SELECT id, llm_summarize_agg(collect_list(review)) AS answer FROM reviews GROUP BY id);

-- A summary of the whole table.
-- runs: make test-slow
-- gives: summary string
-- rows: 1
-- asks: 1
-- holds: length(summary) > 0
SELECT ai_summarize_agg(collect_list(review)) AS summary FROM reviews;

-- A score, in a range of its own.
-- gives: id int, score double
-- rows: 3
-- asks: 2
-- holds: coalesce(score BETWEEN 0 AND 100, id = 3)
SELECT id, ai_score(review, 'how happy the customer is', 0, 100) AS score FROM reviews;

-- The same by name, with the tokens.
-- runs: make test-slow
-- gives: score double
-- rows: 1
-- asks: 1
-- holds: score BETWEEN 0 AND 3
-- since: 4.0
SELECT ai_score('It is the best.', most => 3, rubric => 'how good it is') AS score;

-- Equal texts are equal.
-- gives: similarity float
-- rows: 1
-- asks: 1
-- holds: similarity = 1.0
SELECT ai_similarity('Apache Spark', 'Apache Spark') AS similarity;

-- The nearest come first; a null is near to nothing.
-- gives: id int
-- rows: 2
-- asks: 2
-- holds: id IN (1, 2)
SELECT id FROM (SELECT /*+ COALESCE(1) */ * FROM reviews) WHERE id < 3
ORDER BY ai_similarity(review, 'I love this phone. It is fast, and it works perfectly.') DESC LIMIT 2;

-- The sentiment is one of four.
-- runs: make test-slow
-- gives: sentiment string
-- rows: 1
-- asks: 1
-- holds: sentiment IN ('positive', 'negative', 'neutral', 'mixed')
SELECT ai_analyze_sentiment('I am happy') AS sentiment;

-- A view asks when it is read.
-- asks: 0
CREATE OR REPLACE TEMP VIEW moods AS SELECT id, ai_analyze_sentiment(review) AS mood FROM reviews;

-- Reading the view: what is filtered was asked once.
-- gives: id int, mood string
-- asks: 2
-- holds: mood IN ('positive', 'negative', 'neutral', 'mixed')
SELECT id, mood FROM moods WHERE mood IS NOT NULL;

-- A text with its mistakes corrected.
-- runs: make test-slow
-- gives: corrected string
-- rows: 1
-- asks: 1
-- holds: length(corrected) > 0
SELECT ai_fix_grammar('This sentence have some mistake') AS corrected;

-- A text with what is private masked.
-- runs: make test-slow
-- gives: masked string
-- rows: 1
-- asks: 1
-- holds: length(masked) > 0
SELECT ai_mask('John Doe lives in New York. His email is john.doe@example.com.', array('person', 'email')) AS masked;

-- An endpoint by its name.
-- gives: answer string
-- rows: 1
-- asks: 1
-- holds: length(answer) > 0
SELECT ai_query('my-endpoint', 'Say hello.') AS answer;

-- The same by names, over a table.
-- runs: make test-slow
-- gives: id int, answer string
-- rows: 3
-- asks: 2
-- holds: (answer IS NULL) = (id = 3)
-- since: 4.0
SELECT id, ai_query(endpoint => 'my-endpoint', request => 'Answer this customer: ' || review) AS answer FROM reviews;

-- What cannot be answered is null; the others are answered.
-- needs: real
-- gives: id int, answer string
-- rows: 2
-- asks: 2
-- holds: (answer IS NULL) = (id = 2)
SELECT id, try_ai_query('my-endpoint', repeat('word ', times)) AS answer
FROM VALUES (1, 1), (2, 9000) AS r(id, times);

-- Its reason is in the twin, with the tokens, where `failOnError => false` has it on Databricks.
-- needs: real
-- gives: id int, result string, errorMessage string, tokens int
-- rows: 2
-- asks: 2
-- holds: (result IS NULL) = (id = 2) AND (errorMessage IS NULL) = (id = 1) AND (tokens > 0) <=> nullif(id = 1, FALSE)
SELECT id, answer.text AS result, answer.error.message AS errorMessage, answer.usage.total_tokens AS tokens
FROM (
  SELECT id, llm_query('my-endpoint', repeat('word ', times)) AS answer FROM VALUES (1, 1), (2, 9000) AS r(id, times)
);

-- A null asks nothing.
-- gives: a string, b string, c map<string,string>, d string, e string, f float, g string
-- rows: 1
-- asks: 0
-- holds: coalesce(a, b, d, e, string(f), g) IS NULL AND c IS NULL
SELECT ai_gen(none) AS a, ai_classify(none, array('x', 'y')) AS b, ai_extract(none, array('x')) AS c,
  ai_translate(none, 'fr') AS d, ai_mask(none, array('x')) AS e, ai_similarity(none, 'x') AS f,
  ai_query('my-endpoint', none) AS g
FROM VALUES (CAST(NULL AS STRING)) AS r(none);

-- Equal rows of a task are asked once.
-- gives: sentiment string
-- rows: 3
-- asks: 1
-- holds: sentiment IN ('positive', 'negative', 'neutral', 'mixed')
SELECT ai_analyze_sentiment(review) AS sentiment
FROM (SELECT /*+ COALESCE(1) */ * FROM VALUES ('Great.'), ('Great.'), ('Great.') AS r(review));

-- How many functions the model filed as the catalogue does, and as what it filed most of them.
SELECT
  coalesce(known.category, 'all of them')           AS in_the_catalogue,
  count(*)                                          AS functions,
  count(*) FILTER (said.category = known.category)  AS filed_so,
  mode(said.category)                               AS filed_mostly_as
FROM results."function-categories" AS said
JOIN (SELECT DISTINCT function_name AS name, categories[1] AS category
      FROM duckdb_functions() WHERE len(categories) = 1) AS known USING (name)
GROUP BY ROLLUP (known.category)
ORDER BY functions DESC, in_the_catalogue

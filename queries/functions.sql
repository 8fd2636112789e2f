-- Every documented function of the DuckDB that runs this query: its own catalogue is the data (MIT licence).
-- One row for each name; overloads are told together. Another DuckDB has other functions: its new rows are asked then.
SELECT
  function_name                                                                       AS name,
  min(function_type)                                                                  AS kind,
  string_agg(DISTINCT description, ' ' ORDER BY description)                          AS description,
  string_agg(DISTINCT function_name || '(' || array_to_string(parameters, ', ') || ')', '; '
             ORDER BY function_name || '(' || array_to_string(parameters, ', ') || ')') AS signatures,
  min(array_to_string(examples, '; ')) FILTER (len(examples) > 0)                     AS examples,
  min(alias_of)                                                                       AS alias_of
FROM duckdb_functions()
WHERE internal AND description IS NOT NULL
GROUP BY function_name
ORDER BY name

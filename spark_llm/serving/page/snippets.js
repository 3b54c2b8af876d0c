// One request as code for six clients. Each reads DATABRICKS_HOST and DATABRICKS_TOKEN; none contains the token.

import { invocations } from "./api.js";
import { call, keyword, keywords, list, literal, tuple, write } from "./python.js";
import { CHAT, COMPLETIONS, CUSTOM, EMBEDDINGS, RESPONSES, canStream } from "./tasks.js";

const SAMPLING = ["max_tokens", "temperature", "top_p", "n", "stop", "seed"];
const PENALTIES = ["frequency_penalty", "presence_penalty"];

// What each client has a parameter for. Other fields go into its `extra_body`, or as a whole body.
const OPENAI = {
  [CHAT]: ["messages", ...SAMPLING, ...PENALTIES, "max_completion_tokens", "response_format", "stream", "stream_options"],
  [COMPLETIONS]: ["prompt", ...SAMPLING, ...PENALTIES, "stream", "stream_options"],
  [EMBEDDINGS]: ["input", "dimensions", "encoding_format"],
  [RESPONSES]: ["input", "instructions", "max_output_tokens", "temperature", "top_p", "text", "reasoning", "tools"],
};
const SDK = ["messages", "prompt", "input", "max_tokens", "n", "stop", "temperature"];
const SDK_CUSTOM = ["dataframe_records", "inputs", "instances"];
const SPARK = {
  [CHAT]: [...SAMPLING, "max_completion_tokens", "response_format"],
  [COMPLETIONS]: SAMPLING,
  [EMBEDDINGS]: ["dimensions"],
};

const OPENAI_METHODS = {
  [CHAT]: "chat.completions",
  [COMPLETIONS]: "completions",
  [EMBEDDINGS]: "embeddings",
  [RESPONSES]: "responses",
};
const UDFS = { [CHAT]: "chat", [COMPLETIONS]: "complete", [EMBEDDINGS]: "embed" };
const INPUTS = { [CHAT]: "messages", [COMPLETIONS]: "prompt", [EMBEDDINGS]: "input", [RESPONSES]: "input" };
const CUSTOM_INPUTS = ["dataframe_split", ...SDK_CUSTOM];

/** Returns the fields of which a task's request has one, its input. */
export const inputFields = (task) => (task === CUSTOM ? CUSTOM_INPUTS : [INPUTS[task]]);

/** Returns the code for each client: its id, its name, its language and its text. */
export function snippets({ name, task }, body) {
  const { model, ...fields } = body;
  const shell = { id: "curl", label: "curl", language: "shell", code: curl(name, body) };
  const deployments = { id: "mlflow", label: "mlflow.deployments", language: "Python", code: mlflow(name, task, fields) };
  const workspace = { id: "sdk", label: "databricks.sdk", language: "Python", code: sdk(name, task, fields) };
  if (task === CUSTOM) return [shell, deployments, workspace];
  const sdkOfOpenAI = { id: "openai", label: "openai", language: "Python", code: openai(name, task, fields) };
  if (task === RESPONSES) return [shell, sdkOfOpenAI, deployments, workspace];
  return [
    shell,
    sdkOfOpenAI,
    deployments,
    workspace,
    { id: "spark", label: "spark_llm", language: "Python", code: spark(name, task, fields) },
    { id: "sql", label: "SQL", language: "SQL, from Python", code: sql(name, task, fields) },
  ];
}

function curl(name, body) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const unbuffered = body.stream === true ? " --no-buffer" : "";
  return `curl${unbuffered} "$DATABRICKS_HOST${invocations(name)}" \\
  -H "Authorization: Bearer $DATABRICKS_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '${json}'`;
}

function openai(name, task, fields) {
  const method = OPENAI_METHODS[task];
  const [known, others] = split(fields, OPENAI[task]);
  const extra = isEmpty(others) ? {} : { extra_body: others };
  return `import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ["DATABRICKS_HOST"] + "/serving-endpoints",
    api_key=os.environ["DATABRICKS_TOKEN"],
)
answer = ${write(call(`client.${method}.create`, keywords({ model: name, ...known, ...extra })))}
${printAnswer(task, fields.stream === true, attribute)}`;
}

function mlflow(name, task, { stream, ...inputs }) {
  const isStream = stream === true && canStream(task);
  const method = isStream ? "predict_stream" : "predict";
  return `from mlflow.deployments import get_deploy_client

client = get_deploy_client("databricks")
answer = ${write(call(`client.${method}`, keywords({ endpoint: name, inputs })))}
${printAnswer(task, isStream, item)}`;
}

function sdk(name, task, { stream, ...fields }) {
  const { messages, ...others } = fields;
  const known = task === CUSTOM ? SDK_CUSTOM : task === RESPONSES ? [] : SDK;
  const isTyped = isEmpty(split(fields, known)[1]) && (!messages || isPlain(messages));
  const imports = isTyped && messages ? "from databricks.sdk.service.serving import ChatMessage, ChatMessageRole\n" : "";
  const typed = [
    ...keywords({ name }),
    ...(isTyped && messages ? [keyword("messages", list(messages.map(sdkMessage)))] : []),
    ...keywords(others),
  ];
  const request = isTyped
    ? call("client.serving_endpoints.query", typed)
    : call("client.api_client.do", [literal("POST"), literal(invocations(name)), ...keywords({ body: fields })]);
  return `from databricks.sdk import WorkspaceClient
${imports}
client = WorkspaceClient()
${stream === true ? "# This client does not stream: it waits for the whole answer.\n" : ""}answer = ${write(request)}
${printAnswer(task, false, isTyped ? attribute : item)}`;
}

const sdkMessage = ({ role, content }) =>
  call("ChatMessage", [`role=ChatMessageRole.${role.toUpperCase()}`, ...keywords({ content })]);

function spark(name, task, fields) {
  const { udf, rows, column, shown } = sparkParts(name, task, fields);
  return `from pyspark.sql import SparkSession

from spark_llm import ${UDFS[task]}_udf

spark = SparkSession.builder.getOrCreate()
${UDFS[task]} = ${write(udf)}
${rows}
answers = requests.select(${UDFS[task]}("${column}").alias("answer"))
for row in answers.select("answer.*").collect():
    print(${shown})`;
}

function sql(name, task, fields) {
  const { udf, rows, column, shown } = sparkParts(name, task, fields);
  return `from pyspark.sql import SparkSession

from spark_llm import ${UDFS[task]}_udf, register

spark = SparkSession.builder.getOrCreate()
${UDFS[task]} = ${write(udf)}
register(spark, ${UDFS[task]}=${UDFS[task]})
${rows}
requests.createOrReplaceTempView("requests")

answers = spark.sql("""
    SELECT answer.*
    FROM (SELECT llm_${UDFS[task]}(${column}) AS answer FROM requests)
""")
for row in answers.collect():
    print(${shown})`;
}

// A UDF with the request's parameters, and its input as rows of a DataFrame.
function sparkParts(name, task, { stream, stream_options, encoding_format, ...fields }) {
  const { [INPUTS[task]]: input, ...parameters } = fields;
  const [known, others] = split(parameters, SPARK[task]);
  const extra = isEmpty(others) ? {} : { extra_body: others };
  const result = task === EMBEDDINGS ? "row.embedding" : known.n ? "row.choices" : "row.text";
  let values;
  let schema = `["${INPUTS[task]}"]`;
  let column = INPUTS[task];
  let system = {};
  if (task === CHAT) {
    const [first, ...rest] = input;
    const hasSystem = first.role === "system" && rest.length === 1;
    const [message] = hasSystem ? rest : input;
    if (message.role === "user" && (hasSystem || rest.length === 0)) {
      system = hasSystem ? { system: plainText(first) } : {};
      column = "prompt";
      schema = `["prompt"]`;
      values = [plainText(message)];
    } else {
      schema = literal("messages array<struct<role:string,content:string>>");
      values = [input.map((each) => ({ role: each.role, content: plainText(each) }))];
    }
  } else {
    values = [input].flat();
  }
  const rows = list(values.map((value) => tuple(literal(value))));
  return {
    udf: call(`${UDFS[task]}_udf`, [literal(name), ...keywords({ ...system, ...known, ...extra })]),
    rows: `requests = ${write(call("spark.createDataFrame", [rows, schema]))}`,
    column,
    shown: `${result} if row.error is None else row.error`,
  };
}

// How Python reaches a field of an answer: as an attribute, or as an item of a dict.
const attribute = (name) => `.${name}`;
const item = (name) => `["${name}"]`;

function printAnswer(task, isStream, field) {
  if (task === CUSTOM) return field === item ? "print(answer)" : "print(answer.as_dict())";
  if (task === RESPONSES) return field === item ? "print(answer)" : "print(answer.output_text)";
  if (task === EMBEDDINGS) return `for row in answer${field("data")}:\n    print(row${field("embedding")})`;
  if (isStream) {
    const piece = task === CHAT ? `${field("delta")}${field === item ? '.get("content")' : ".content"}` : field("text");
    return `for chunk in answer:
    for choice in chunk${field("choices")}:
        print(choice${piece} or "", end="", flush=True)`;
  }
  const content = task === CHAT ? `${field("message")}${field("content")}` : field("text");
  return `for choice in answer${field("choices")}:\n    print(choice${content})`;
}

function split(fields, names) {
  const entries = Object.entries(fields);
  return [
    Object.fromEntries(entries.filter(([name]) => names.includes(name))),
    Object.fromEntries(entries.filter(([name]) => !names.includes(name))),
  ];
}

const isEmpty = (fields) => Object.keys(fields).length === 0;

const isPlain = (messages) =>
  messages.every(
    (message) =>
      ["system", "user", "assistant"].includes(message.role) &&
      typeof message.content === "string" &&
      Object.keys(message).length === 2,
  );

// A DataFrame's messages have text only, so parts of other types are left out.
const plainText = ({ content }) =>
  Array.isArray(content) ? content.map((part) => part.text ?? "").join("") : (content ?? "");

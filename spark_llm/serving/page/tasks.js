// The tasks of endpoints: their names, and an example request of each.

export const CHAT = "llm/v1/chat";
export const COMPLETIONS = "llm/v1/completions";
export const EMBEDDINGS = "llm/v1/embeddings";
export const RESPONSES = "agent/v1/responses"; // of models that take no chat
export const CUSTOM = undefined; // the description of a custom model has no task

const TASKS = {
  [CHAT]: {
    label: "Chat",
    example: {
      messages: [
        { role: "system", content: "Answer in one sentence." },
        { role: "user", content: "What is Apache Spark?" },
      ],
      max_tokens: 64,
      temperature: 0,
    },
  },
  [COMPLETIONS]: {
    label: "Completions",
    example: { prompt: "Apache Spark is", max_tokens: 32, temperature: 0 },
  },
  [EMBEDDINGS]: {
    label: "Embeddings",
    example: { input: ["The mug keeps coffee hot for hours.", "The lid leaks when I walk."] },
  },
  [RESPONSES]: {
    label: "Responses",
    example: { instructions: "Answer in one sentence.", input: "What is Apache Spark?", max_output_tokens: 64 },
  },
  [CUSTOM]: {
    label: "Custom model",
    example: { dataframe_split: { columns: ["age", "text"], data: [[42, "The lid leaks when I walk."]] } },
  },
};

/** Returns the name of a task for people. */
export const taskLabel = (task) => TASKS[task]?.label ?? task;

/** Returns an example request of a task, as JSON. */
export const exampleOf = (task) => JSON.stringify(TASKS[task]?.example ?? {}, null, 2);

/** Returns whether a task's answers are streamed on request. */
export const canStream = (task) => task === CHAT || task === COMPLETIONS;

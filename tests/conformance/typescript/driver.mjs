// Runs the official TypeScript client against a server and prints what it saw, as one JSON object.
//
//   node driver.mjs SDK_FOLDER BASE_URL API_KEY MODEL TOOL_JSON
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, baseURL, apiKey, model, toolJson] = process.argv.slice(2);
const Anthropic = createRequire(join(folder, "package.json"))("@anthropic-ai/sdk").default;
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "Say hi." }];
const tools = [JSON.parse(toolJson)];
const small = { model, max_tokens: 8, messages };

async function events(request) {
  const seen = [];
  for await (const event of await client.messages.create({ ...request, stream: true })) {
    seen.push(event.type);
  }
  return seen;
}

async function accumulate(request) {
  let heard = "";
  const stream = client.messages.stream(request).on("text", (text) => (heard += text));
  return { heard, final: await stream.finalMessage(), heardAfter: heard };
}

async function refusal(call) {
  try {
    await call();
    return { refused: false };
  } catch (error) {
    const { status, requestID } = error;
    return { refused: true, name: error.constructor.name, status, requestID, body: error.error };
  }
}

async function leave() {
  const stream = client.messages.stream({ ...small, max_tokens: 400 });
  for await (const _ of stream) break;
  return await client.messages.create({ ...small, max_tokens: 2 });
}

const cases = {
  create: () => client.messages.create(small),
  events: () => events(small),
  stream: () => accumulate({ ...small, max_tokens: 24 }),
  tool: () =>
    accumulate({
      ...small,
      max_tokens: 400,
      messages: [{ role: "user", content: "Say hello with Bash." }],
      tools,
      tool_choice: { type: "any" },
    }),
  beta: () => client.beta.messages.create({ ...small, betas: ["invented-2031-01-01"] }),
  count: () => client.messages.countTokens({ model, messages, tools }),
  models: async () => {
    const ids = [];
    for await (const one of client.models.list({ limit: 1000 })) ids.push(one.id);
    return ids;
  },
  model: async () => client.models.retrieve((await client.models.list()).data[0].id),
  leave,
  bad: () => refusal(() => client.messages.create({ ...small, max_tokens: -1 })),
  badStream: () => refusal(() => client.messages.stream({ ...small, max_tokens: -1 }).finalMessage()),
  missing: () => refusal(() => client.models.retrieve("no-such-model")),
};

const results = {};
for (const [name, run] of Object.entries(cases)) {
  try {
    results[name] = { value: await run() };
  } catch (error) {
    results[name] = { error: `${error.constructor.name}: ${error.message}` };
  }
}
console.log(JSON.stringify(results));

// The Vercel AI SDK over both dialects; prints the outcomes as one JSON document.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, base] = process.argv.slice(2);
const require = createRequire(path.join(folder, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { generateText, streamText, generateObject, tool, stepCountIs } = await load("ai");
const { createAnthropic } = await load("@ai-sdk/anthropic");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { z } = await load("zod");

const anthropic = createAnthropic({ baseURL: `${base}/v1`, apiKey: "any" })("any");
const openai = createOpenAICompatible({
  name: "local", baseURL: `${base}/v1`, apiKey: "any", supportsStructuredOutputs: true,
})("any");
const common = { maxRetries: 0, maxOutputTokens: 500 };
const COMMAND = "echo hello from anyclaude";
const LOOP_ENDS = "The tool call came back";

function check(holds, seen) {
  if (!holds) throw new Error(`unexpected: ${JSON.stringify(seen)}`);
}

function offered(ran) {
  return {
    Bash: tool({
      description: "Run a command.",
      inputSchema: z.object({ command: z.string(), description: z.string() }),
      execute: async ({ command }) => { ran.push(command); return "hello"; },
    }),
  };
}

async function loop(model) {
  const ran = [];
  const said = await generateText({
    model, ...common, prompt: "Go.", tools: offered(ran), stopWhen: stepCountIs(3),
  });
  check(ran.join() === COMMAND && said.text.startsWith(LOOP_ENDS), [ran, said.text]);
}

async function streamed(model) {
  const ran = [];
  const said = streamText({
    model, ...common, prompt: "Go.", tools: offered(ran), stopWhen: stepCountIs(3),
  });
  let text = "";
  for await (const part of said.textStream) text += part;
  check(ran.join() === COMMAND && text.startsWith(LOOP_ENDS), [ran, text]);
}

async function structured(model) {
  const schema = z.object({ title: z.string().max(40) });
  const { object } = await generateObject({ model, ...common, prompt: "A title?", schema });
  check(object.title, object);
}

const results = {};
for (const [dialect, model] of Object.entries({ "Messages API": anthropic, "chat completions": openai })) {
  const steps = {
    "tool loop (`generateText`": loop,
    "tool loop (`streamText`": streamed,
    "structured answer (`generateObject`": structured,
  };
  for (const [name, step] of Object.entries(steps)) {
    const outcome = await step(model).then(() => "passed", (error) => {
      console.error(error);
      return `failed: ${String(error).split("\n")[0]}`.slice(0, 200);
    });
    results[`${name}, ${dialect})`] = outcome;
  }
}
const versions = Object.fromEntries(
  ["ai", "@ai-sdk/anthropic", "@ai-sdk/openai-compatible"].map((name) => [
    name, require(path.join(folder, "node_modules", name, "package.json")).version,
  ]),
);
console.log(JSON.stringify({ versions, results }));

// The official client for TypeScript, with its tool runner; prints the outcomes as one JSON document.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [folder, base] = process.argv.slice(2);
const require = createRequire(path.join(folder, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { betaZodTool } = await load("@anthropic-ai/sdk/helpers/beta/zod");
const { zodOutputFormat } = await load("@anthropic-ai/sdk/helpers/zod");
const { z } = await load("zod");

const client = new Anthropic({ baseURL: base, apiKey: "any", maxRetries: 0 });
const common = { model: "any", max_tokens: 500 };

function check(holds, seen) {
  if (!holds) throw new Error(`unexpected: ${JSON.stringify(seen)}`);
}

async function loop() {
  const ran = [];
  const bash = betaZodTool({
    name: "Bash",
    description: "Run a command.",
    inputSchema: z.object({ command: z.string(), description: z.string() }),
    run: async ({ command }) => { ran.push(command); return "hello"; },
  });
  const messages = [{ role: "user", content: "Go." }];
  const said = await client.beta.messages.toolRunner({ ...common, messages, tools: [bash] });
  check(ran.join() === "echo hello from anyclaude", ran);
  check(said.content[0].text.startsWith("The tool call came back"), said);
}

async function structured() {
  const format = zodOutputFormat(z.object({ title: z.string().max(40) }));
  const said = await client.messages.parse({
    ...common, messages: [{ role: "user", content: "A title?" }], output_config: { format },
  });
  check(said.parsed_output.title, said);
}

const results = {};
const steps = { "tool loop (`toolRunner`)": loop, "structured answer (`messages.parse`)": structured };
for (const [name, step] of Object.entries(steps)) {
  results[name] = await step().then(() => "passed", (error) => {
    console.error(error);
    return `failed: ${String(error).split("\n")[0]}`.slice(0, 200);
  });
}
const versions = { "@anthropic-ai/sdk": require(
  path.join(folder, "node_modules", "@anthropic-ai", "sdk", "package.json"),
).version };
console.log(JSON.stringify({ versions, results }));

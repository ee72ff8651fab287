import { createHmac } from "node:crypto";

/** A token for whoever is logged in; the secret never leaves the server. Here everybody is `ada`. */
export function GET(): Response {
  const secret = process.env.TASKWIRE_JWT_SECRET;
  if (!secret) return Response.json({}); // Development mode: no token needed.
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 15 * 60;
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "ada", exp })}`;
  const signature = createHmac("sha256", secret).update(text).digest("base64url");
  return Response.json({ token: `${text}.${signature}` });
}

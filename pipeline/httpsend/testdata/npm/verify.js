// Reads [{key, headers, body in base64}] from standard input and prints, as an
// array, which of these calls a receiver with that key takes.
import { readFileSync } from "node:fs";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

function verifies({ key, headers, body }) {
  try {
    new Webhook(key).verify(Buffer.from(body, "base64"), headers);
    return true;
  } catch (e) {
    if (e instanceof WebhookVerificationError) return false;
    if (e instanceof SyntaxError) return true; // verified, then read as JSON, which an empty body is not
    throw e;
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(verifies)));

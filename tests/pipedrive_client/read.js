// Reads everything from a Pipedrive at argv[2] with the vendor's own client, unmodified, and prints one JSON object: rows by list,
// answers to errors, and `undeclared` / `missing`: where a row's keys depart from the client's own type declarations.
// Environment: PIPEDRIVE_TOKEN, PIPEDRIVE_CLIENT_ID, PIPEDRIVE_CLIENT_SECRET, PIPEDRIVE_CODE.
const fs = require("fs");
const path = require("path");
const v1 = require("pipedrive/v1");
const v2 = require("pipedrive/v2");

const base = process.argv[2];
const limit = Number(process.argv[3] || 500);
const models = path.join(path.dirname(require.resolve("pipedrive/v2")), "..");
const out = { rows: {}, pages: {}, undeclared: {}, missing: {}, refused: {}, oauth: {} };

// Keys of a declared interface: [all, those without "?"]; a type that joins others has the keys of all of them.
function declared(version, file) {
  const text = fs.readFileSync(path.join(models, version, "models", file + ".d.ts"), "utf8");
  const keys = [...text.matchAll(/^    '(\w+)'(\??):/gm)];
  const joined = text.match(/^export type \w+ = ((?:\w+ & )+\w+);/m);
  let all = keys.map((k) => k[1]), needed = keys.filter((k) => !k[2]).map((k) => k[1]);
  for (const name of joined ? joined[1].split(" & ") : []) {
    const other = text.match(new RegExp(`import \\{ ${name} \\} from './([\\w-]+)'`))[1];
    const [more, must] = declared(version, other);
    all = all.concat(more);
    needed = needed.concat(must);
  }
  return [all, needed];
}

function judge(name, rows, version, file) {
  const [all, needed] = declared(version, file);
  const custom = /^[0-9a-f]{40}(_\w+)?$/;
  out.undeclared[name] = [...new Set(rows.flatMap((r) => Object.keys(r).filter((k) => !all.includes(k) && !custom.test(k))))];
  out.missing[name] = needed.filter((k) => rows.some((r) => !(k in r)));
}

async function byCursor(name, ask, file, more = {}) {
  const rows = [];
  let cursor, pages = 0;
  do {
    const answer = await ask({ limit, cursor, ...more });
    rows.push(...answer.data);
    cursor = answer.additional_data.next_cursor;
    pages += 1;
  } while (cursor);
  out.rows[name] = rows;
  out.pages[name] = pages;
  if (file) judge(name, rows, ...file);
  return rows;
}

async function byOffset(name, ask, file, more = {}) {
  const rows = [];
  let start = 0, pages = 0, again;
  do {
    const answer = await ask({ limit, start, ...more });
    rows.push(...(answer.data || []));
    const told = answer.additional_data.pagination || answer.additional_data;
    again = told.more_items_in_collection;
    start = told.next_start || told.start + told.limit;
    pages += 1;
  } while (again);
  out.rows[name] = rows;
  out.pages[name] = pages;
  if (file) judge(name, rows, ...file);
  return rows;
}

async function refused(name, call) {
  try {
    await call();
    out.refused[name] = null;
  } catch (error) {
    out.refused[name] = error;
  }
}

async function main() {
  const two = new v2.Configuration({ apiKey: process.env.PIPEDRIVE_TOKEN, basePath: base + "/api/v2" });
  const one = new v1.Configuration({ apiKey: process.env.PIPEDRIVE_TOKEN, basePath: base + "/api/v1" });
  const deals = new v2.DealsApi(two), deals1 = new v1.DealsApi(one), persons = new v2.PersonsApi(two), leads = new v1.LeadsApi(one);
  const sorted = { sort_by: "update_time", sort_direction: "asc" };
  await byCursor("deals", (p) => deals.getDeals(p), ["v2", "deal"], sorted);
  await byCursor("archived", (p) => deals.getArchivedDeals(p), null, sorted);
  await byCursor("labelled", (p) => deals.getDeals(p), null, { include_option_labels: true });
  await byCursor("persons", (p) => persons.getPersons(p), ["v2", "person"], sorted);
  await byCursor("organizations", (p) => new v2.OrganizationsApi(two).getOrganizations(p), ["v2", "organization-item"], sorted);
  await byCursor("activities", (p) => new v2.ActivitiesApi(two).getActivities(p), ["v2", "activity-item"], sorted);
  await byCursor("products", (p) => new v2.ProductsApi(two).getProducts(p), ["v2", "get-products-response-data-inner"]);
  await byCursor("pipelines", (p) => new v2.PipelinesApi(two).getPipelines(p), ["v2", "get-pipelines-response-all-of-data-inner"]);
  await byCursor("stages", (p) => new v2.StagesApi(two).getStages(p), ["v2", "stage-item"]);
  await byCursor("dealFields", (p) => new v2.DealFieldsApi(two).getDealFields(p), ["v2", "get-deal-fields200-response-data-inner"]);
  await byCursor("personFields", (p) => new v2.PersonFieldsApi(two).getPersonFields(p), null);
  const ids = out.rows.deals.map((d) => d.id);
  out.rows.deal_products = [];
  for (let i = 0; i < ids.length; i += 100) {
    await byCursor("items", (p) => new v2.DealProductsApi(two).getDealsProducts({ deal_ids: ids.slice(i, i + 100), ...p }), ["v2", "get-deals-products-response-data-inner"]);
    out.rows.deal_products.push(...out.rows.items);
  }
  await byOffset("leads", (p) => leads.getLeads(p), ["v1", "lead"]);
  await byOffset("archivedLeads", (p) => leads.getArchivedLeads(p), ["v1", "lead"]);
  await byOffset("notes", (p) => new v1.NotesApi(one).getNotes(p), ["v1", "note"]);
  for (const [name, ask, file] of [
    ["users", () => new v1.UsersApi(one).getUsers(), "base-user"],
    ["activityTypes", () => new v1.ActivityTypesApi(one).getActivityTypes(), "activity-type"],
    ["currencies", () => new v1.CurrenciesApi(one).getCurrencies(), "get-currencies-response-data-inner"],
    ["leadLabels", () => new v1.LeadLabelsApi(one).getLeadLabels(), "lead-label"],
    ["leadSources", () => new v1.LeadSourcesApi(one).getLeadSources(), "lead-source"],
  ]) {
    out.rows[name] = (await ask()).data;
    judge(name, out.rows[name], "v1", file);
  }
  out.me = (await new v1.UsersApi(one).getCurrentUser()).data;
  const changed = Number(process.argv[4] || ids[0]);
  await byCursor("changelog", (p) => deals1.getDealChangelog({ id: changed, ...p }), ["v1", "get-changelog-response-all-of-data-inner"]);
  await byOffset("flow", (p) => deals1.getDealUpdates({ id: changed, all_changes: "1", items: "dealChange", ...p }), null);
  const messages = await byOffset("mails", (p) => deals1.getDealMailMessages({ id: changed, ...p }), null);
  judge("mails", messages.map((m) => m.data), "v1", "mail-message-data");

  await refused("badToken", () => new v2.DealsApi(new v2.Configuration({ apiKey: "wrong", basePath: base + "/api/v2" })).getDeals());
  await refused("absent", () => deals.getDeal({ id: 999999 }));
  await refused("badCursor", () => deals.getDeals({ limit, cursor: "bm90IGEgY3Vyc29yIGF0IGFsbA==" }));
  await refused("gone", () => new v2.DealsApi(new v2.Configuration({ apiKey: process.env.PIPEDRIVE_TOKEN, basePath: base + "/api/v1" })).getDeals());

  const oauth = new v2.OAuth2Configuration({ clientId: process.env.PIPEDRIVE_CLIENT_ID, clientSecret: process.env.PIPEDRIVE_CLIENT_SECRET, redirectUri: "http://localhost/back", host: base });
  await oauth.authorize(process.env.PIPEDRIVE_CODE);
  const first = oauth.refreshToken;
  await oauth.tokenRefresh();
  out.oauth.rotated = oauth.refreshToken !== first;
  out.oauth.base = oauth.basePath;
  out.oauth.me = (await new v1.UsersApi(new v1.Configuration({ accessToken: oauth.getAccessToken, basePath: base + "/api/v1" })).getCurrentUser()).data.id;
  const second = oauth.refreshToken;
  oauth.refreshToken = first;
  await refused("usedRefreshToken", () => oauth.tokenRefresh());
  oauth.refreshToken = second;
  await refused("scope", () => new v1.MailboxApi(new v1.Configuration({ accessToken: oauth.getAccessToken, basePath: base + "/api/v1" })).getMailThreads({ folder: "inbox" }));

  if (process.env.PIPEDRIVE_WRITE) {
    const created = (await deals.addDeal({ AddDealRequest: { title: "Written by the vendor's client", value: 10, currency: "EUR" } })).data;
    const patched = (await deals.updateDeal({ id: created.id, UpdateDealRequest: { value: 20 } })).data;
    const removed = (await deals.deleteDeal({ id: created.id })).data;
    out.written = { created, patched, removed };
  }
  process.stdout.write(JSON.stringify(out));
}

main().catch((error) => {
  process.stderr.write(String(error && error.stack ? error.stack : JSON.stringify(error)));
  process.exit(1);
});

// Logs in to a Salesforce server with jsforce, reads from it in every way that the connector relies on, and prints what it saw as JSON.
// node judge.js URL CLIENT_ID CLIENT_SECRET USERNAME PASSWORD NOW
const { Connection } = require('jsforce');

const [url, clientId, clientSecret, username, password, now] = process.argv.slice(2);
const VERSION = '65.0';

async function bulk(conn, soql, all) {
  const rows = [];
  const stream = await conn.bulk2.query(soql, { scanAll: all, pollInterval: 20, pollTimeout: 20000 });
  await new Promise((resolve, reject) => stream.on('record', (row) => rows.push(row)).on('end', resolve).on('error', reject));
  return rows;
}

async function refused(work) {
  try { await work(); return null; } catch (error) { return { code: error.errorCode || error.name, message: error.message }; }
}

async function main() {
  const seen = {};
  const conn = new Connection({ loginUrl: url, instanceUrl: url, version: VERSION, oauth2: { loginUrl: url, clientId, clientSecret } });
  await conn.authorize({ grant_type: 'client_credentials' });
  const byPassword = new Connection({ loginUrl: url, version: VERSION, oauth2: { loginUrl: url, clientId, clientSecret } });
  seen.user = (await byPassword.login(username, password)).id;
  seen.wrong = await refused(() => new Connection({ loginUrl: url, version: VERSION, oauth2: { loginUrl: url, clientId, clientSecret: 'no' } }).authorize({ grant_type: 'client_credentials' }));
  seen.soap = await refused(() => new Connection({ loginUrl: url, version: '59.0' }).login(username, password));
  seen.identity = (await conn.identity()).user_id;

  const first = await conn.query('SELECT Id, Subject, Owner.Name, What.Name FROM Task ORDER BY Id');
  seen.total = first.totalSize;
  seen.pages = [first.records.length];
  seen.ids = first.records.map((r) => r.Id);
  seen.first = first.records[0];
  for (let page = first; !page.done;) {
    page = await conn.queryMore(page.nextRecordsUrl);
    seen.pages.push(page.records.length);
    seen.ids.push(...page.records.map((r) => r.Id));
  }
  seen.auto = (await conn.query('SELECT Id FROM Task').run({ autoFetch: true, maxFetch: 100000 })).records.length;
  seen.found = (await conn.sobject('Opportunity').find({ IsWon: true, Amount: { $gt: 1000 } }, ['Id', 'Name', 'Amount']).sort({ Amount: -1 }).limit(3)).map((r) => r.Amount);
  seen.nested = (await conn.query("SELECT Id, (SELECT Id, StageName FROM OpportunityHistories) FROM Opportunity WHERE IsClosed = true ORDER BY CreatedDate LIMIT 1")).records[0];
  seen.groups = (await conn.query('SELECT StageName, COUNT(Id) n FROM Opportunity GROUP BY StageName ORDER BY StageName')).records.map((r) => [r.StageName, r.n]);
  seen.deleted = (await conn.query('SELECT Id FROM Opportunity WHERE IsDeleted = true', { scanAll: true })).records.map((r) => r.Id);

  const described = await conn.describe('Lead');
  seen.fields = described.fields.map((f) => f.name);
  seen.objects = (await conn.describeGlobal()).sobjects.map((o) => o.name);
  seen.missing = await refused(() => conn.query('SELECT Id, Nothing__c FROM Lead'));
  seen.unknown = await refused(() => conn.query('SELECT Id FROM Nothing__c'));
  seen.malformed = await refused(() => conn.query('SELECT Id FROM Lead WHERE'));

  const end = new Date(now);
  const gone = await conn.sobject('Opportunity').deleted(new Date(end.getTime() - 20 * 86400000).toISOString(), end.toISOString());
  seen.gone = gone.deletedRecords.map((r) => r.id);
  seen.updated = (await conn.sobject('Lead').updated(new Date(end.getTime() - 28 * 86400000).toISOString(), end.toISOString())).ids;
  seen.limits = (await conn.limits()).DailyApiRequests;
  seen.usage = conn.limitInfo.apiUsage;

  seen.bulk = await bulk(conn, 'SELECT Id, Name, Amount, CloseDate, SystemModstamp, IsWon, Owner.Name FROM Opportunity');
  seen.bulkAll = (await bulk(conn, 'SELECT Id, IsDeleted FROM Opportunity', true)).length;
  seen.bulkRefused = await refused(() => bulk(conn, 'SELECT COUNT(Id) FROM Opportunity'));
  await conn.logout();
  seen.after = await refused(() => conn.query('SELECT Id FROM Lead LIMIT 1'));
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });

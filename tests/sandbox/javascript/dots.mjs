// The provider's TypeScript client does all that the sandbox has: node dots.mjs URL CLUSTER, with the token on stdin.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { FetchRequestAdapter } from '@microsoft/kiota-http-fetchlibrary';
import { DigitalOceanApiKeyAuthenticationProvider, createDigitalOceanClient } from '@digitalocean/dots';

const [url, id] = process.argv.slice(2);
const adapter = new FetchRequestAdapter(new DigitalOceanApiKeyAuthenticationProvider(readFileSync(0, 'utf8')));
const client = createDigitalOceanClient(adapter);
adapter.baseUrl = url;
const { databases } = client.v2;
const cluster = databases.byDatabase_cluster_uuid(id);

const listed = (await databases.get({ queryParameters: { tagName: 'production' } })).databases;
assert.deepEqual(listed.map((cluster) => cluster.id), [id]);
const { database } = await cluster.get();
assert.equal(database.name, 'events');
assert.equal(database.status, 'online');
assert.ok(database.connection.uri.includes(database.connection.password));
const certificate = Buffer.from((await cluster.ca.get()).ca.certificate, 'base64').toString();
assert.match(certificate, /^-----BEGIN CERTIFICATE-----/);

const acl = [{ topic: 'orders', permission: 'consume' }];
const made = (await cluster.users.post({ name: 'app/1', settings: { acl } })).user;
assert.equal(made.name, 'app/1');
assert.equal(made.role, 'normal');
const one = cluster.users.byUsername('app/1');
const read = (await one.get()).user;
assert.equal(read.password, made.password);
assert.equal(read.accessKey, made.accessKey);
assert.equal(read.settings.acl[0].topic, 'orders');
const updated = (await one.put({ settings: { acl: [{ topic: 'all', permission: 'produceconsume' }] } })).user;
assert.equal(updated.settings.acl[0].permission, 'produceconsume');
assert.notEqual((await one.reset_auth.post({})).user.password, made.password);
assert.deepEqual((await cluster.users.get()).users.map((user) => user.name), ['doadmin', 'app/1']);
await one.delete();
await assert.rejects(one.get(), (error) => error.responseStatusCode === 404 && error.id === 'not_found');

assert.equal((await cluster.dbs.post({ name: 'alpha' })).db.name, 'alpha');
assert.equal((await cluster.dbs.byDatabase_name('alpha').get()).db.name, 'alpha');
assert.deepEqual((await cluster.dbs.get()).dbs.map((db) => db.name), ['alpha']);
await cluster.dbs.byDatabase_name('alpha').delete();
assert.deepEqual((await cluster.dbs.get()).dbs, []);

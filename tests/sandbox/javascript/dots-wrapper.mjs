// A client of the community does all that it can: node dots-wrapper.mjs URL CLUSTER, with the token on stdin.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import dots from 'dots-wrapper';

const [url, id] = process.argv.slice(2);
const { database: api } = dots.createApiClient({ endpoint: `${url}/v2`, token: readFileSync(0, 'utf8') });
const cluster = { database_cluster_id: id };
const user = { ...cluster, user_name: 'app-1' };

const listed = (await api.listDatabaseClusters({ tag_name: 'production' })).data.databases;
assert.deepEqual(listed.map((cluster) => cluster.id), [id]);
assert.equal((await api.getDatabaseCluster(cluster)).data.database.name, 'events');

const settings = { acl: [{ topic: 'orders', permission: 'consume' }] };
const made = (await api.createDatabaseClusterUser({ ...user, settings })).data.user;
assert.equal(made.settings.acl[0].permission, 'consume');
assert.deepEqual((await api.getDatabaseClusterUser(user)).data.user, made);
assert.deepEqual((await api.listDatabaseClusterUsers({ ...cluster, page: 1, per_page: 25 })).data.users[1], made);
assert.equal((await api.removeDatabaseClusterUser(user)).status, 204);
await assert.rejects(api.getDatabaseClusterUser(user), (error) => error.response.data.id === 'not_found');

const db = { ...cluster, db_name: 'alpha' };
assert.deepEqual((await api.createDatabaseClusterDb(db)).data, { db: { name: 'alpha' } });
assert.deepEqual((await api.getDatabaseClusterDb(db)).data, { db: { name: 'alpha' } });
assert.deepEqual((await api.listDatabaseClusterDbs({ ...cluster, page: 1, per_page: 25 })).data.dbs, [{ name: 'alpha' }]);
assert.equal((await api.deleteDatabaseClusterDb(db)).status, 204);

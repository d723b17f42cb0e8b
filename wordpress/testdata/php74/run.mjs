// Runs PHP 7.4 on what it reads: a JSON list of runs, each a tree of files
// (copied to the same paths, links as links) and a page, or code. Writes a JSON list
// of what each said.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { getPHPLoaderModule } from '@php-wasm/node-7-4';
import { loadPHPRuntime, PHP } from '@php-wasm/universal';

const loader = await getPHPLoaderModule();
const out = [];
let php = null;
for (const run of JSON.parse(readFileSync(0, 'utf8'))) {
	php ??= new PHP(await loadPHPRuntime(loader, {}));
	for (const dir of run.trees) {
		copy(php, dir);
	}
	for (const path of run.unreadable ?? []) {
		php.unlink(path); // there is but one account in there
	}
	try {
		const said = await php.run({
			code: run.code,
			scriptPath: run.page,
			relativeUri: '/',
			method: run.method,
			$_SERVER: { REMOTE_ADDR: '203.0.113.7', REQUEST_METHOD: run.method ?? 'GET' },
		});
		out.push(said.text);
	} catch (e) {
		out.push(String(e));
		php.exit();
		php = null; // who knows in what state it is
	}
}
process.stdout.write(JSON.stringify(out), () => process.exit(0));

function copy(php, path) {
	php.mkdirTree(path);
	for (const entry of readdirSync(path, { withFileTypes: true })) {
		const at = path + '/' + entry.name;
		if (entry.isSymbolicLink()) {
			php.symlink(readlinkSync(at), at);
		} else if (entry.isDirectory()) {
			copy(php, at);
		} else {
			php.writeFile(at, readFileSync(at));
		}
	}
}

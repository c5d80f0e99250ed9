/*
 * Runs a declarative Jenkinsfile without Jenkins, with JenkinsPipelineUnit's loader:
 *
 *     groovy run.groovy JENKINSFILE WORKSPACE NAME=VALUE ...
 *
 * Its `sh` steps are really run, in the workspace. A name in capitals is a parameter of the build or a
 * variable of its environment; BRANCH_NAME is the branch, ABORT the step in which the build is aborted. Prints a line of JSON for each step, and the
 * result last.
 *
 * The release of JenkinsPipelineUnit in Maven Central is from before it knew declarative pipelines, so
 * what the directives mean is said here: those that the Jenkinsfile uses, and no others. A directive
 * that is missing here is an error.
 */
import com.lesfurets.jenkins.unit.PipelineTestHelper
import groovy.json.JsonOutput

class Failed extends Exception {
    Failed(String message) { super(message) }
}

// Somebody ends the build, or its time is over.
class Aborted extends Failed {
    Aborted(String message) { super(message) }
}

File jenkinsfile = new File(args[0])
File workspace = new File(args[1])
Map<String, String> given = args.drop(2).collectEntries { it.split('=', 2).toList() }
String result = 'SUCCESS'
String stage = null
// The labels of the agents that are held, and the ends of time that are set: the innermost is last.
List<String> agents = []
List<String> limits = []
// What a block declares, while it is read: the innermost is last.
List<Map> blocks = []
List<Map> withheld = []
Binding binding = new Binding()
Map env = new HashMap(given) + [GIT_COMMIT: given.GIT_COMMIT ?: 'abc1234']
binding.setVariable('env', env)
binding.setVariable('params', given)

def say = { Map line -> println(JsonOutput.toJson(line)) }
def read = { Closure body ->
    blocks.push([:])
    body.call()
    blocks.pop()
}
def declare = { String name, value -> blocks.first()[name] = value }
def run
run = { String name, Map found ->
    stage = name
    if (found.when && !found.when.every { it.call() }) {
        say(stage: name, skipped: true)
        return
    }
    if (result in ['FAILURE', 'ABORTED']) {
        say(stage: name, skipped: true)
        return
    }
    Map after = found.post ?: [:]
    boolean failed = false
    if (found.agent) { agents << found.agent }
    if (found.limit) { limits << found.limit }
    if (found.environment) { found.environment.call() }
    try {
        if (found.stages) {
            found.stages.each { run(it.name, it) }
            failed = result in ['FAILURE', 'ABORTED']
        } else if (found.parallel) {
            // All of them run, whatever becomes of the others.
            List results = found.parallel.collect { Map inner ->
                result = 'SUCCESS'
                run(inner.name, inner)
                result
            }
            result = results.contains('FAILURE') ? 'FAILURE' : 'SUCCESS'
            failed = result == 'FAILURE'
        } else {
            found.steps.call()
        }
    } catch (Failed error) {
        say(stage: name, failed: error.message)
        failed = true
        result = error instanceof Aborted ? 'ABORTED' : 'FAILURE'
    }
    stage = name
    if (failed) { after.unsuccessful?.call() }
    after.always?.call()
    if (found.agent) { agents.removeLast() }
    if (found.limit) { limits.removeLast() }
}

PipelineTestHelper helper = new PipelineTestHelper()
helper.baseClassloader = PipelineTestHelper.classLoader
helper.scriptRoots = [jenkinsfile.parent]
helper.scriptExtension = ''
helper.baseScriptRoot = '.'
def on = { String name, List types, Closure body -> helper.registerAllowedMethod(name, types, body) }

on('pipeline', [Closure]) { Closure body ->
    Map found = read(body)
    if (found.agent) { agents << found.agent }
    if (found.limit) { limits << found.limit }
    found.environment?.call()
    found.stages.each { run(it.name, it) }
}
on('agent', [Closure]) { Closure body -> body.call() }
on('agent', [Object]) { assert it == 'none' }
binding.setVariable('none', 'none')
on('label', [String]) { String name -> declare('agent', name) }
on('options', [Closure]) { Closure body -> body.call() }
on('buildDiscarder', [Object]) { it }
on('logRotator', [Map]) { it }
on('disableConcurrentBuilds', []) { }
on('timeout', [Map]) { Map it -> declare('limit', "${it.time} ${it.unit}".toString()) }
on('parameters', [Closure]) { Closure body -> read(body) }
on('choice', [Map]) { Map it ->
    if (!given[it.name]) { given[it.name] = it.choices[0] }
}
on('environment', [Closure]) { Closure body ->
    declare('environment') {
        // What the checkout sets is there only where there is an agent.
        Map known = agents ? env : env.findAll { it.key != 'GIT_COMMIT' }
        Map declared = [env: known]
        body.delegate = declared
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
        env.putAll(declared.findAll { it.key != 'env' })
    }
}
on('stages', [Closure]) { Closure body ->
    blocks.push([stages: []])
    body.call()
    Map found = blocks.pop()
    blocks.first().stages = found.stages
}
on('parallel', [Closure]) { Closure body ->
    blocks.push([stages: []])
    body.call()
    Map found = blocks.pop()
    blocks.first().parallel = found.stages
}
on('stage', [String, Closure]) { String name, Closure body ->
    Map found = read(body)
    blocks.first().stages << (found + [name: name])
}
on('steps', [Closure]) { Closure body -> declare('steps', body) }
on('when', [Closure]) { Closure body ->
    blocks.push([all: []])
    body.call()
    Map found = blocks.pop()
    blocks.first().when = found.all
}
on('beforeAgent', [Boolean]) { Boolean it -> assert it }
on('branch', [String]) { String name -> blocks.first().all << { -> env.BRANCH_NAME == name } }
on('expression', [Closure]) { Closure body -> blocks.first().all << body }
on('post', [Closure]) { Closure body ->
    Map found = read(body)
    blocks.first().post = found
}
['always', 'unsuccessful'].each { String name -> on(name, [Closure]) { Closure body -> declare(name, body) } }

on('script', [Closure]) { Closure body -> body.call() }
on('sh', [String]) { String command ->
    ProcessBuilder builder = new ProcessBuilder('sh', '-xe', '-c', command)
    builder.directory(workspace).redirectErrorStream(true)
    env.each { key, value -> builder.environment().put(key.toString(), value.toString()) }
    Process process = builder.start()
    process.inputStream.eachLine { System.err.println(it) }
    int code = process.waitFor()
    say(stage: stage, sh: command, code: code, secrets: withheld*.variable, agents: agents, limits: limits)
    if (given.ABORT == command) { throw new Aborted("${command}: aborted") }
    if (code != 0) { throw new Failed("${command}: exit code ${code}") }
}
on('readFile', [String]) { String path -> new File(workspace, path).text }
on('unstable', [String]) { String message ->
    result = 'UNSTABLE'
    say(stage: stage, unstable: message)
}
on('archiveArtifacts', [Map]) { Map it -> say(stage: stage, archived: it.artifacts) }
on('input', [Map]) { Map it ->
    say(stage: stage, asked: it.message, agents: agents, limits: limits)
    if (given.ANSWER == 'abort') { throw new Aborted('aborted') }
}
on('file', [Map]) { it }
on('string', [Map]) { it }
on('withCredentials', [List, Closure]) { List secrets, Closure body ->
    withheld.addAll(secrets)
    secrets.each { env[it.variable] = given[it.variable] ?: "secret-${it.credentialsId}" }
    try {
        body.call()
    } finally {
        secrets.each { env.remove(it.variable) }
        withheld.removeAll(secrets)
    }
}

helper.init()
helper.loadScript(jenkinsfile.name, binding).run()
say(result: result)
System.exit(result in ['FAILURE', 'ABORTED'] ? 1 : 0)

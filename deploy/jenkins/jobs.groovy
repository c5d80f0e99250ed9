// The seed job: one pipeline for each branch of the repository.
multibranchPipelineJob('fraud-pipeline') {
    branchSources {
        git {
            id('fraud-pipeline')
            remote(System.getenv('FRAUD_REPOSITORY'))
        }
    }
    factory {
        workflowBranchProjectFactory {
            scriptPath('deploy/jenkins/Jenkinsfile')
        }
    }
    orphanedItemStrategy {
        discardOldItems {
            numToKeep(20)
        }
    }
}

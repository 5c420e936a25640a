import { annotation, GROUP, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { annotationOf, areSame, isConfigMapUnchanged, isUpdate, labelOf } from './cel.ts';
import { rule, validating, type AdmissionObject, type Operation } from './policies.ts';

/**
 * Verbs of our own on `evidencesegments`: `record` writes evidence, and lets it go (the operator);
 * `export` marks a segment as copied elsewhere (who keeps that copy).
 */
export type EvidenceVerb = 'record' | 'export';

function mayOnEvidence(verb: EvidenceVerb): string {
  return `authorizer.group('${GROUP}').resource('${resources.evidenceSegments.plural}').namespace(request.namespace).check('${verb}').allowed()`;
}

const operations: Operation[] = ['CREATE', 'UPDATE', 'DELETE'];

const isDelete = `(request.operation == 'DELETE')`;
/** The namespace controller takes everything with the namespace. */
const goesWithNamespace = `(${isDelete} && namespaceObject.metadata.?deletionTimestamp.hasValue())`;

/** What is recorded is written by the operator alone; that it only grows is in its schema. */
export function evidencePolicies(): AdmissionObject[] {
  return [...segments(), ...anchors()];
}

function segments(): AdmissionObject[] {
  const others = (of: string, than: string): string =>
    `${of}.metadata.?annotations.orValue({}).all(k, k == '${annotation.exported}' || ${than}.metadata.?annotations[?k] == ${of}.metadata.?annotations[?k])`;
  const isUnchanged = [
    areSame(['spec', 'metadata.?labels', 'metadata.?ownerReferences', 'metadata.?finalizers']),
    others('object', 'oldObject'),
    others('oldObject', 'object'),
  ].join(' && ');
  const exported = (of: string): string => annotationOf(of, annotation.exported);
  return validating({
    name: 'evidence',
    description: 'Evidence is written by the operator alone, and goes when it may.',
    rules: [rule(resources.evidenceSegments, operations)],
    everywhere: true,
    variables: {
      marks: `${isUpdate} && ${isUnchanged}`,
    },
    validations: [
      {
        expression: `(${isUpdate} && variables.marks) || ${goesWithNamespace} || ${mayOnEvidence('record')}`,
        message:
          'evidence is written by the operator alone, and only ever appended to; read it with kubectl guardrails timeline',
      },
      {
        expression: `!${isUpdate} || ${exported('object')} == ${exported('oldObject')} || ${mayOnEvidence('export')}`,
        message:
          'that a copy of evidence is kept elsewhere is said by whoever holds the verb export on evidencesegments',
      },
      {
        expression: `!${isUpdate} || ${exported('object')} in ['', ${exported('oldObject')}] || ${exported('object')} == object.spec.head.hash`,
        message:
          "the annotation exported is the hash of the segment's last record, so that what came later isn't taken for exported",
      },
      {
        // The record that explains the gap stands in a later segment.
        expression: `!${isDelete} || ${goesWithNamespace} || oldObject.spec.sealed`,
        message:
          'the end of a chain of evidence stays: a segment goes when it is sealed and its time is over',
      },
      {
        expression: `${isDelete} || ${labelOf('object', label.chain)} == object.spec.chain && (${labelOf('object', label.sealed)} == 'true') == object.spec.sealed`,
        message: 'the labels of a segment of evidence say its chain, and whether it is sealed',
      },
    ],
  });
}

/** The heads that are written down outside of the chains, and the keys that signed them. */
function anchors(): AdmissionObject[] {
  return validating({
    name: 'evidence-anchors',
    description: 'Anchors of evidence are written by the operator alone.',
    rules: [rule(resources.configMaps, operations)],
    everywhere: true,
    objectSelector: { matchExpressions: [{ key: label.evidence, operator: 'Exists' }] },
    validations: [
      {
        expression: `${goesWithNamespace} || ${isConfigMapUnchanged} || ${mayOnEvidence('record')}`,
        message: `a ConfigMap with the label ${label.evidence} is written by the operator alone`,
      },
    ],
  });
}

// A person in the call as a plain value: what the views draw, and nothing they could change.

import { Track } from './vendor/livekit-client.esm.mjs';

/** @typedef {import('./vendor/livekit-client.esm.mjs').Participant} Participant */

/**
 * @typedef {object} Person
 * @property {string} identity
 * @property {string} name
 * @property {boolean} isLocal
 * @property {boolean} speaking
 * @property {boolean} muted
 * @property {boolean} cameraOn
 * @property {Track | undefined} camera
 * @property {Track | undefined} screen
 * @property {boolean} sharing
 * @property {boolean} paused the server holds the video back for lack of bandwidth
 * @property {'excellent' | 'good' | 'poor' | 'lost' | 'unknown'} quality
 * @property {boolean} away seen before the connection broke, not yet again
 */

/**
 * @param {Participant} participant
 * @param {boolean} isLocal
 * @returns {Person}
 */
export function describe(participant, isLocal) {
  const camera = participant.getTrackPublication(Track.Source.Camera);
  const screen = participant.getTrackPublication(Track.Source.ScreenShare);
  return {
    identity: participant.identity,
    name: displayName(participant),
    isLocal,
    speaking: participant.isSpeaking && participant.isMicrophoneEnabled,
    muted: !participant.isMicrophoneEnabled,
    cameraOn: participant.isCameraEnabled,
    camera: participant.isCameraEnabled ? camera?.track : undefined,
    screen: screen && !screen.isMuted ? screen.track : undefined,
    sharing: screen !== undefined && !screen.isMuted,
    paused: camera?.track?.streamState === Track.StreamState.Paused,
    quality: participant.connectionQuality,
    away: false,
  };
}

/**
 * @param {Participant | undefined} participant
 * @param {string} [fallback]
 */
export function displayName(participant, fallback = '') {
  return (participant?.name?.trim() || participant?.identity || fallback || 'Guest').slice(0, NAME_MAX);
}

/**
 * Somebody whose place is kept while the connection is down.
 * @param {Person} person
 * @returns {Person}
 */
export function away(person) {
  return { ...person, away: true, speaking: false, cameraOn: false, camera: undefined, screen: undefined, sharing: false, paused: false, quality: 'lost' };
}

const NAME_MAX = 80;

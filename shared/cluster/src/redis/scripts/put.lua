-- Replaces a record, if its session is still the one that is seated.
local identity, sid, generation, version, flags, node, record = unpack(ARGV, 4)
if not exists() then return { 'no room' } end
local held = seat(identity)
if not held or held.sid ~= sid or held.generation ~= generation then return { 'superseded' } end
if tonumber(version) <= held.version then return { 'ok', seq() } end
if not has_seat(flags, held) then return { 'full' } end
local before = held.flags ~= flags and IS_TOLD and string.sub(held.flags, 5) ~= string.sub(flags, 5)
  and redis.call('HGET', P, identity)
sit(identity, generation, version, flags, node, sid, record, held)
if before then tell(bytes(2, before) .. bytes(3, record)) end
return { 'ok', publish(bytes(3, record)) }

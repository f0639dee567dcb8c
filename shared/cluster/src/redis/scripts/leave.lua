local identity, sid, generation, reason = unpack(ARGV, 4)
if not exists() then return { 'no room' } end
local held = seat(identity)
if not held then return { 'ok', seq() } end
if held.sid ~= sid or held.generation ~= generation then return { 'superseded' } end
return { 'ok', remove(identity, held, reason) }

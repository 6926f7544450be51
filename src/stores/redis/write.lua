-- Makes one write. A row is its version (8 bytes), the length of its topic (4), the topic, the value; the version and
-- topic of a delete are remembered for a while. With a `head` the write is published on the row's topic. A set needs
-- only the first two keys.
--
-- `rows` has other fields that are no keys either. '\255', length and topic is the state of a topic: the versions of
-- its last write (8), of its last forgotten write (8), and of its first (8), which is its id; then the numbers of its
-- first note (8) and of its next one (8). '\254', id and number is a note: the version (8), '\255' if it was a delete,
-- and the key.
local what, key, value, topic, wanted, flags, head, tail, remembered = unpack(ARGV, 4)
-- A server that was lost since may have published the first try: its number must not get another version.
if within and head ~= '' then
    return {6}
end
local unless_equal, returning = flags == 'e' or flags == 'er', flags == 'r' or flags == 'er'

local packed, topic_bytes, stands, standing
if topic == '' then
    packed = call('HGET', rows, key)
else
    topic_bytes = pack('>I4', #topic) .. topic
    stands = '\255' .. topic_bytes
    packed, standing = unpack(call('HMGET', rows, key, stands))
end
local exists = packed and last or call('HEXISTS', about, 'exists') == 1
local is_there = packed or call('HEXISTS', rows, '\255') == 1
local version, deleted, of_topic, value_at
local has_more = deletes and not exists
    and call('EXISTS', deletes) + call('EXISTS', keys) + call('EXISTS', topics) + call('EXISTS', order) > 0
if not exists ~= not is_there or has_more then
    return {within and 6 or 7}
elseif packed then
    local length
    version, length = unpack_bytes('>I8I4', packed)
    value_at = 13 + length
    of_topic = sub(packed, 13, value_at - 1)
elseif what == 'create' then
    deleted = call('HGET', deletes, key)
    version = deleted and unpack_bytes('>I8', deleted)
end

if what == 'create' then
    if packed then
        return {1}
    end
elseif not packed or (topic ~= '' and topic ~= of_topic) then
    -- A set does not see the other parts of the table.
    return {(exists or deletes) and 2 or 9}
end
if wanted ~= '' and tonumber(wanted) ~= version then
    return {3, version}
end

local before = false
if what == 'create' then
    of_topic = topic
elseif unless_equal or returning then
    before = sub(packed, value_at)
    if unless_equal and what == 'set' and before == value then
        return {5, sub(packed, 1, 8), of_topic, returning and before}
    end
    before = returning and before
end
if topic == '' then
    topic_bytes = sub(packed, 9, value_at - 1)
    stands = '\255' .. topic_bytes
    standing = call('HGET', rows, stands)
end
if packed and not standing then
    return {within and 6 or 7}
end

local next_version = (last or 0) + 1
local version_text = string.format('%d', next_version)
local version_bytes = pack('>I8', next_version)
local row = version_bytes .. topic_bytes .. value
local after = standing and sub(standing, 1, 8) or pack('>I8', call('HGET', about, 'deleted') or 0)
local bounds = standing and sub(standing, 9, 32) or pack('>I8', 0) .. version_bytes .. pack('>I8', 0)
local noted = standing and unpack_bytes('>I8', standing, 33) or 0
local stands_now = version_bytes .. bounds .. pack('>I8', noted + 1)
local prefix = '\254' .. sub(bounds, 9, 16)
local note_at, note_of = prefix .. pack('>I8', noted), version_bytes .. (what == 'delete' and '\255' or '') .. key
-- At times old notes are removed, a few more than were added.
local trim
if noted % 64 == 63 then
    trim = function()
        local first = unpack_bytes('>I8', bounds, 17)
        local function name(number)
            return pack('>c9I8', prefix, number)
        end
        local oldest = next_version - math.max(remembered, LOGGED)
        -- The notes are in the order of their versions.
        local old, most, last_old = 0, math.min(100, noted - first + 1), nil
        while old < most do
            local middle = math.ceil((old + most) / 2)
            local note = call('HGET', rows, name(first + middle - 1))
            if note and unpack_bytes('>I8', note) <= oldest then
                old, last_old = middle, note
            else
                most = middle - 1
            end
        end
        if old > 0 then
            local names = {}
            for number = first, first + old - 1 do
                names[#names + 1] = name(number)
            end
            bounds = sub(last_old, 1, 8) .. sub(bounds, 9, 16) .. pack('>I8', first + old)
            redis.pcall('HSET', rows, stands, version_bytes .. bounds .. pack('>I8', noted + 1))
            redis.pcall('HDEL', rows, unpack(names))
        end
    end
end
-- If the client named no topic, the session has it.
local made = pack('>I8', number) .. version_bytes .. after .. (topic == '' and of_topic or '')
local message
if head == '' then
elseif string.byte(head) < 128 then
    local number = unpack_bytes('>I8', after)
    -- Numbers become text slowly.
    local text = number == next_version - 1 and last or string.format('%d', number)
    message = head .. version_text .. ',"after":' .. text .. tail
else
    -- A map of MessagePack begins above ASCII.
    message = head .. '\207' .. version_bytes .. '\165after\207' .. after .. tail
end
local numbers = version_bytes .. after
local reply = topic ~= '' and not before and numbers or {0, numbers, of_topic, before}

-- As with `step`, without its cost.
if what == 'set' then
    local pcall = redis.pcall
    call('HSET', about, 'version', version_text, session, made, 'tip', session .. ARGV[2])
    local done = pcall('HSET', rows, key, row, stands, stands_now, note_at, note_of)
    if message and type(done) == 'number' then
        done = pcall('PUBLISH', of_topic, message)
    end
    if type(done) == 'number' then
        if trim then
            trim()
        end
        return reply
    end
    local backs = {
        pcall('HSET', rows, key, packed, stands, standing),
        pcall('HSET', about, 'version', last, session, kept or string.rep('\0', 24), 'tip', tip or ''),
        pcall('HDEL', rows, note_at),
    }
    for _, back in ipairs(backs) do
        if type(back) ~= 'number' then
            return {6}
        end
    end
    return done
end

//! Message types, channel bits and extension types against the reference's constants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sv2::message::{Message, common, extension, mining};

fn check<M: Message>(extension_type: u16, msg_type: u8, channel_msg: bool) {
    let ours = (M::EXTENSION_TYPE, M::MSG_TYPE, M::CHANNEL_MSG);
    assert_eq!(ours, (extension_type, msg_type, channel_msg), "{}", std::any::type_name::<M>());
}

/// Compares each message with the constants of its name in the reference's crate.
macro_rules! places {
    ($test:ident, $ours:ident, $reference:ident, $extension:expr => {
        $($name:ident $msg_type:ident $channel_msg:ident)+
    }) => {
        #[test]
        fn $test() {
            $(check::<$ours::$name>($extension, $reference::$msg_type, $reference::$channel_msg);)+
        }
    };
}

places! { common_messages, common, common_messages_sv2, 0 => {
    SetupConnection MESSAGE_TYPE_SETUP_CONNECTION CHANNEL_BIT_SETUP_CONNECTION
    SetupConnectionSuccess
        MESSAGE_TYPE_SETUP_CONNECTION_SUCCESS CHANNEL_BIT_SETUP_CONNECTION_SUCCESS
    SetupConnectionError MESSAGE_TYPE_SETUP_CONNECTION_ERROR CHANNEL_BIT_SETUP_CONNECTION_ERROR
    ChannelEndpointChanged
        MESSAGE_TYPE_CHANNEL_ENDPOINT_CHANGED CHANNEL_BIT_CHANNEL_ENDPOINT_CHANGED
    Reconnect MESSAGE_TYPE_RECONNECT CHANNEL_BIT_RECONNECT
} }

places! { mining_messages, mining, mining_sv2, 0 => {
    OpenStandardMiningChannel
        MESSAGE_TYPE_OPEN_STANDARD_MINING_CHANNEL CHANNEL_BIT_OPEN_STANDARD_MINING_CHANNEL
    OpenStandardMiningChannelSuccess
        MESSAGE_TYPE_OPEN_STANDARD_MINING_CHANNEL_SUCCESS
        CHANNEL_BIT_OPEN_STANDARD_MINING_CHANNEL_SUCCESS
    OpenMiningChannelError
        MESSAGE_TYPE_OPEN_MINING_CHANNEL_ERROR CHANNEL_BIT_OPEN_MINING_CHANNEL_ERROR
    OpenExtendedMiningChannel
        MESSAGE_TYPE_OPEN_EXTENDED_MINING_CHANNEL CHANNEL_BIT_OPEN_EXTENDED_MINING_CHANNEL
    OpenExtendedMiningChannelSuccess
        MESSAGE_TYPE_OPEN_EXTENDED_MINING_CHANNEL_SUCCESS
        CHANNEL_BIT_OPEN_EXTENDED_MINING_CHANNEL_SUCCESS
    NewMiningJob MESSAGE_TYPE_NEW_MINING_JOB CHANNEL_BIT_NEW_MINING_JOB
    UpdateChannel MESSAGE_TYPE_UPDATE_CHANNEL CHANNEL_BIT_UPDATE_CHANNEL
    UpdateChannelError MESSAGE_TYPE_UPDATE_CHANNEL_ERROR CHANNEL_BIT_UPDATE_CHANNEL_ERROR
    CloseChannel MESSAGE_TYPE_CLOSE_CHANNEL CHANNEL_BIT_CLOSE_CHANNEL
    SetExtranoncePrefix MESSAGE_TYPE_SET_EXTRANONCE_PREFIX CHANNEL_BIT_SET_EXTRANONCE_PREFIX
    SubmitSharesStandard MESSAGE_TYPE_SUBMIT_SHARES_STANDARD CHANNEL_BIT_SUBMIT_SHARES_STANDARD
    SubmitSharesExtended MESSAGE_TYPE_SUBMIT_SHARES_EXTENDED CHANNEL_BIT_SUBMIT_SHARES_EXTENDED
    SubmitSharesSuccess MESSAGE_TYPE_SUBMIT_SHARES_SUCCESS CHANNEL_BIT_SUBMIT_SHARES_SUCCESS
    SubmitSharesError MESSAGE_TYPE_SUBMIT_SHARES_ERROR CHANNEL_BIT_SUBMIT_SHARES_ERROR
    NewExtendedMiningJob MESSAGE_TYPE_NEW_EXTENDED_MINING_JOB CHANNEL_BIT_NEW_EXTENDED_MINING_JOB
    SetNewPrevHash MESSAGE_TYPE_MINING_SET_NEW_PREV_HASH CHANNEL_BIT_MINING_SET_NEW_PREV_HASH
    SetTarget MESSAGE_TYPE_SET_TARGET CHANNEL_BIT_SET_TARGET
    SetCustomMiningJob MESSAGE_TYPE_SET_CUSTOM_MINING_JOB CHANNEL_BIT_SET_CUSTOM_MINING_JOB
    SetCustomMiningJobSuccess
        MESSAGE_TYPE_SET_CUSTOM_MINING_JOB_SUCCESS CHANNEL_BIT_SET_CUSTOM_MINING_JOB_SUCCESS
    SetCustomMiningJobError
        MESSAGE_TYPE_SET_CUSTOM_MINING_JOB_ERROR CHANNEL_BIT_SET_CUSTOM_MINING_JOB_ERROR
    SetGroupChannel MESSAGE_TYPE_SET_GROUP_CHANNEL CHANNEL_BIT_SET_GROUP_CHANNEL
} }

places! { extension_messages, extension, extensions_sv2,
    extensions_sv2::EXTENSION_TYPE_EXTENSIONS_NEGOTIATION => {
    RequestExtensions MESSAGE_TYPE_REQUEST_EXTENSIONS CHANNEL_BIT_REQUEST_EXTENSIONS
    RequestExtensionsSuccess
        MESSAGE_TYPE_REQUEST_EXTENSIONS_SUCCESS CHANNEL_BIT_REQUEST_EXTENSIONS_SUCCESS
    RequestExtensionsError
        MESSAGE_TYPE_REQUEST_EXTENSIONS_ERROR CHANNEL_BIT_REQUEST_EXTENSIONS_ERROR
} }
